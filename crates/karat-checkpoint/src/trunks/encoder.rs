//! Encoders of BERT's form: absolute positions, norms after attention and MLP, a classifier at the first token.
//!
//! Families differ in their names, in how positions are counted, and in what stands before the classifier's last matrix.

use super::{
    Read, Trunk,
    deberta::{Convolution, Distances},
};
use crate::{config::Config, problems::Problems};

/// The measures and variants of an encoder.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    /// The width of a state.
    pub(crate) hidden: usize,
    /// The width of an embedding; projected to `hidden` where it differs.
    pub(crate) embedding: usize,
    /// How many layers.
    pub(crate) layers: usize,
    /// How many heads a layer; divides `hidden`.
    pub(crate) heads: usize,
    /// The width of the MLP.
    pub(crate) intermediate: usize,
    /// How many tokens have an embedding.
    pub(crate) vocabulary: usize,
    /// How many positions have an embedding; 0 where there are none.
    pub(crate) positions: usize,
    /// Where positions are counted from what isn't padding, the padding token, whose number the count starts behind.
    pub(crate) counts_behind: Option<u32>,
    /// How many segments have an embedding; 0 where there are none.
    pub(crate) segments: usize,
    /// What keeps a norm's root from 0.
    pub(crate) epsilon: f64,
    /// The MLP's activation.
    pub(crate) activation: Gate,
    /// How layers attend to distances, where they do.
    pub(crate) distances: Option<Distances>,
    /// What is added behind the first layer, where anything is.
    pub(crate) convolution: Option<Convolution>,
    /// What its tensors are called.
    pub(crate) names: &'static Names,
    /// What stands above the trunk.
    pub(crate) classifier: Classifier,
}

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The exact Gaussian error linear unit.
    Gelu,
    /// Its tanh form.
    GeluTanh,
    /// Its logistic form, `x · σ(1.702 x)`.
    QuickGelu,
    /// A rectifier.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

/// `W₂ gate(W₁ h₀ + b₁) + b₂` of the first token's state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Classifier {
    /// The first matrix.
    pub(crate) dense: &'static str,
    /// What follows it.
    pub(crate) gate: Gate,
    /// The last matrix.
    pub(crate) last: &'static str,
}

/// What a family calls its tensors, `.weight` and `.bias` left out; those of a layer stand behind `layer` and its number.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) tokens: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) segments: &'static str,
    pub(crate) embedding_norm: &'static str,
    pub(crate) projection: &'static str,
    pub(crate) layer: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) drawn: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) norm: &'static str,
}

macro_rules! bert_names {
    ($prefix:literal) => {
        Names {
            tokens: concat!($prefix, "embeddings.word_embeddings"),
            positions: concat!($prefix, "embeddings.position_embeddings"),
            segments: concat!($prefix, "embeddings.token_type_embeddings"),
            embedding_norm: concat!($prefix, "embeddings.LayerNorm"),
            projection: concat!($prefix, "embeddings_project"),
            layer: concat!($prefix, "encoder.layer."),
            query: "attention.self.query",
            key: "attention.self.key",
            value: "attention.self.value",
            drawn: "attention.output.dense",
            attention_norm: "attention.output.LayerNorm",
            inner: "intermediate.dense",
            outer: "output.dense",
            norm: "output.LayerNorm",
        }
    };
}

static BERT: Names = bert_names!("bert.");
static ROBERTA: Names = bert_names!("roberta.");
static ELECTRA: Names = bert_names!("electra.");
static DISTILBERT: Names = Names {
    layer: "distilbert.transformer.layer.",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    drawn: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    norm: "output_layer_norm",
    ..bert_names!("distilbert.")
};

impl Encoder {
    /// BERT's form, with what every family's configuration says.
    pub(super) fn plain(
        config: &Config,
        names: &'static Names,
        classifier: Classifier,
        problems: &mut Problems,
    ) -> Option<Self> {
        let hidden = config.count("hidden_size", problems);
        let embedding = config.count_or("embedding_size", hidden.unwrap_or(0), problems);
        let layers = config.layers("num_hidden_layers", problems);
        let heads = config.count("num_attention_heads", problems);
        let intermediate = config.count("intermediate_size", problems);
        let vocabulary = config.count("vocab_size", problems);
        let positions = config.count("max_position_embeddings", problems);
        let segments = config.get("type_vocab_size").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let epsilon = config.positive_or("layer_norm_eps", 1e-12, problems);
        let activation = gate(config, "hidden_act", problems);
        if config.text("position_embedding_type").is_some_and(|kind| kind != "absolute") {
            problems.add::<()>("config.json: position_embedding_type other than absolute is not known");
        }
        config.know(&[
            "is_decoder",
            "add_cross_attention",
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_last_dropout",
        ]);
        Some(Self {
            hidden: hidden?,
            embedding: embedding?,
            layers: layers?,
            heads: heads?,
            intermediate: intermediate?,
            vocabulary: vocabulary?,
            positions: positions?,
            counts_behind: None,
            segments: usize::try_from(segments).ok()?,
            epsilon: epsilon?,
            activation: activation?,
            distances: None,
            convolution: None,
            names,
            classifier,
        })
        .filter(|encoder| encoder.divides(problems))
    }

    fn divides(&self, problems: &mut Problems) -> bool {
        let divides = self.hidden.is_multiple_of(self.heads);
        if !divides {
            problems.add::<()>(format!("config.json: {} is no multiple of {} heads", self.hidden, self.heads));
        }
        divides
    }

    /// The most tokens of a sample.
    pub(crate) fn context(&self) -> usize {
        if let Some(distances) = &self.distances {
            return distances.rows.len() / 2 + 1;
        }
        // Where counting starts behind the padding token's number, as many positions are never used.
        let unused = self.counts_behind.map_or(0, |padding| padding as usize + 1);
        self.positions.saturating_sub(unused).max(1)
    }
}

/// The activation that a key names; the exact Gaussian error linear unit where it is missing.
pub(super) fn gate(config: &Config, key: &str, problems: &mut Problems) -> Option<Gate> {
    match config.text(key) {
        None | Some("gelu") => Some(Gate::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh") => Some(Gate::GeluTanh),
        Some("relu") => Some(Gate::Relu),
        Some(other) => {
            problems.add(format!("config.json: {key} {other:?} is not known; known are gelu, gelu_new and relu"))
        }
    }
}

const POOLED: Classifier = Classifier { dense: "bert.pooler.dense", gate: Gate::Tanh, last: "classifier" };
const IN_HEAD: Classifier = Classifier { dense: "classifier.dense", gate: Gate::Tanh, last: "classifier.out_proj" };

/// BERT.
pub(super) const BERT_TRUNK: Trunk = Trunk {
    model_type: "bert",
    class: "Bert",
    read: Read::Encoder(|config, problems| Encoder::plain(config, &BERT, POOLED, problems)),
    defaults: &[],
};
/// RoBERTa, whose positions are counted from what isn't padding.
pub(super) const ROBERTA_TRUNK: Trunk =
    Trunk { model_type: "roberta", class: "Roberta", read: Read::Encoder(roberta), defaults: &[] };
/// XLM-RoBERTa: RoBERTa with another vocabulary.
pub(super) const XLM_ROBERTA_TRUNK: Trunk =
    Trunk { model_type: "xlm-roberta", class: "XLMRoberta", read: Read::Encoder(roberta), defaults: &[] };
/// ELECTRA, whose embeddings may be narrower than its states.
pub(super) const ELECTRA_TRUNK: Trunk = Trunk {
    model_type: "electra",
    class: "Electra",
    read: Read::Encoder(|config, problems| {
        let head = Classifier { gate: Gate::Gelu, ..IN_HEAD };
        Encoder::plain(config, &ELECTRA, head, problems)
    }),
    defaults: &[],
};
/// DistilBERT, whose configuration has names of its own.
pub(super) const DISTILBERT_TRUNK: Trunk =
    Trunk { model_type: "distilbert", class: "DistilBert", read: Read::Encoder(distilbert), defaults: &[] };

fn roberta(config: &Config, problems: &mut Problems) -> Option<Encoder> {
    let padding = config.token("pad_token_id").unwrap_or(1);
    let plain = Encoder::plain(config, &ROBERTA, IN_HEAD, problems)?;
    Some(Encoder { counts_behind: Some(padding), ..plain })
}

fn distilbert(config: &Config, problems: &mut Problems) -> Option<Encoder> {
    config.know(&["sinusoidal_pos_embds", "seq_classif_dropout", "qa_dropout", "dropout", "tie_weights_"]);
    let (hidden, layers) = (config.count("dim", problems), config.layers("n_layers", problems));
    let (heads, intermediate) = (config.count("n_heads", problems), config.count("hidden_dim", problems));
    let vocabulary = config.count("vocab_size", problems);
    let positions = config.count("max_position_embeddings", problems);
    let activation = gate(config, "activation", problems);
    let encoder = Encoder {
        hidden: hidden?,
        embedding: hidden?,
        layers: layers?,
        heads: heads?,
        intermediate: intermediate?,
        vocabulary: vocabulary?,
        positions: positions?,
        counts_behind: None,
        segments: 0,
        epsilon: 1e-12,
        activation: activation?,
        distances: None,
        convolution: None,
        names: &DISTILBERT,
        classifier: Classifier { dense: "pre_classifier", gate: Gate::Relu, last: "classifier" },
    };
    encoder.divides(problems).then_some(encoder)
}
