//! The trunks: what a model computes below its head, family by family.
//!
//! A decoder's file says how its family differs from a [`Decoder`]'s plain form, which is Llama's: norms before attention
//! and MLP, rotary positions, grouped keys and values, a gated MLP. Encoders have forms of their own. [`TRUNKS`] is the
//! list of all.

pub(crate) mod deberta;
pub(crate) mod encoder;
mod gemma;
mod gemma2;
mod internlm2;
mod llama;
mod mistral;
pub(crate) mod modernbert;
mod names;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;

use crate::{config::Config, problems::Problems, rope::Rope};

pub(crate) use names::{Names, Part, Piece};

/// Every family, in the order of messages.
pub(crate) const TRUNKS: &[Trunk] = &[
    llama::TRUNK,
    qwen2::TRUNK,
    qwen3::TRUNK,
    mistral::TRUNK,
    gemma::TRUNK,
    gemma2::TRUNK,
    phi3::TRUNK,
    internlm2::TRUNK,
    olmo2::TRUNK,
    smollm3::TRUNK,
    encoder::BERT_TRUNK,
    encoder::ROBERTA_TRUNK,
    encoder::XLM_ROBERTA_TRUNK,
    encoder::ELECTRA_TRUNK,
    encoder::DISTILBERT_TRUNK,
    deberta::TRUNK,
    modernbert::TRUNK,
];

/// A family of trunks.
pub(crate) struct Trunk {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// How the names of its classes begin.
    pub(crate) class: &'static str,
    /// Reads a configuration of this family.
    pub(crate) read: Read,
}

/// How a configuration is read.
pub(crate) enum Read {
    /// Of a model that looks back.
    Decoder(fn(&Config, &mut Problems) -> Option<Decoder>),
    /// Of one that looks both ways.
    Encoder(fn(&Config, &mut Problems) -> Option<encoder::Encoder>),
    /// Of one that looks both ways and has rotary positions.
    Modern(fn(&Config, &mut Problems) -> Option<modernbert::ModernBert>),
}

/// The measures and variants of a decoder.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// The width of a state.
    pub(crate) hidden: usize,
    /// How many layers.
    pub(crate) layers: usize,
    /// How many query heads a layer.
    pub(crate) heads: usize,
    /// How many heads of keys and values a layer; divides `heads`.
    pub(crate) kv_heads: usize,
    /// The width of a head, even.
    pub(crate) head_dim: usize,
    /// The width of the MLP.
    pub(crate) intermediate: usize,
    /// How many tokens have an embedding.
    pub(crate) vocabulary: usize,
    /// The most tokens for which the graph is exact: positions that were trained, and no window reached.
    pub(crate) context: usize,
    /// The positions.
    pub(crate) rope: Rope,
    /// The norms.
    pub(crate) norm: Norm,
    /// Where the norms of a layer stand.
    pub(crate) norms: Norms,
    /// Whether queries and keys are normed.
    pub(crate) query_key_norm: QueryKeyNorm,
    /// The layers without positions.
    pub(crate) unrotated: Vec<usize>,
    /// The MLP's activation.
    pub(crate) activation: Activation,
    /// Whether queries, keys and values have a bias.
    pub(crate) qkv_bias: bool,
    /// Whether what attention gives has a bias.
    pub(crate) output_bias: bool,
    /// Whether the MLP has biases.
    pub(crate) mlp_bias: bool,
    /// What likenesses of queries and keys are multiplied by.
    pub(crate) query_scale: f64,
    /// The bound of likenesses: `cap · tanh(likeness / cap)`.
    pub(crate) attention_cap: Option<f64>,
    /// The bound of a language model's logits.
    pub(crate) logit_cap: Option<f64>,
    /// What embeddings are multiplied by.
    pub(crate) embedding_scale: Option<f64>,
    /// Whether the language-model head is the table of embeddings.
    pub(crate) tied_embeddings: bool,
    /// What its tensors are called.
    pub(crate) names: Names,
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norms {
    /// Before attention and before the MLP.
    Before,
    /// Behind both, before what they give is added.
    After,
    /// Before and behind both.
    Around,
}

/// How queries and keys are normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryKeyNorm {
    /// Not.
    None,
    /// Each head alone.
    PerHead,
    /// All heads together.
    AcrossHeads,
}

/// Root-mean-square norms (Zhang and Sennrich 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    /// What keeps the root from 0.
    pub(crate) epsilon: f64,
    /// Whether a weight w stands for 1 + w.
    pub(crate) one_is_zero: bool,
}

/// What gates the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The tanh form of the Gaussian error linear unit.
    GeluTanh,
}

impl Decoder {
    /// Where a part's weights are.
    pub(crate) fn piece(&self, layer: usize, part: Part) -> Piece {
        (self.names)(self, layer, part)
    }

    /// How many query heads share a head of keys and values.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The plain form: Llama's, with what every family's configuration says.
    ///
    /// Families read their own keys before they ask for this: a key that nobody came to read is told as unknown.
    fn plain(config: &Config, problems: &mut Problems) -> Option<Self> {
        let gate = activation(config, &["hidden_act"], problems);
        Self::plain_gated(config, gate, problems)
    }

    /// The plain form with another gate.
    fn plain_gated(config: &Config, gate: Option<Activation>, problems: &mut Problems) -> Option<Self> {
        let hidden = config.count("hidden_size", problems);
        let heads = config.count("num_attention_heads", problems);
        let layers = config.count("num_hidden_layers", problems);
        let intermediate = config.count("intermediate_size", problems);
        let vocabulary = config.count("vocab_size", problems);
        let context = config.count("max_position_embeddings", problems);
        let kv_heads = config.count_or("num_key_value_heads", heads.unwrap_or(1), problems);
        let head_dim = config.count_or("head_dim", hidden.unwrap_or(0) / heads.unwrap_or(1), problems);
        let epsilon = config.positive_or("rms_norm_eps", 1e-6, problems);
        let rope = Rope::read(config, context.unwrap_or(0), problems);
        let tied_embeddings = config.is_on("tie_word_embeddings");
        let layer_types = config.get("layer_types").and_then(|types| types.as_array()).into_iter().flatten();
        let odd = layer_types.into_iter().find(|kind| *kind != "full_attention" && *kind != "sliding_attention");
        if let Some(odd) = odd {
            problems.add::<()>(format!("config.json: layers of type {odd} are not known"));
        }
        let (heads, kv_heads, head_dim) = (heads?, kv_heads?, head_dim?);
        if heads % kv_heads != 0 {
            return problems
                .add(format!("config.json: {heads} attention heads are no multiple of {kv_heads} key-value heads"));
        }
        if head_dim % 2 != 0 {
            return problems.add(format!("config.json: heads of {head_dim} dimensions can't be rotated in pairs"));
        }
        Some(Self {
            hidden: hidden?,
            layers: layers?,
            heads,
            kv_heads,
            head_dim,
            intermediate: intermediate?,
            vocabulary: vocabulary?,
            context: context?,
            rope: rope?,
            norm: Norm { epsilon: epsilon?, one_is_zero: false },
            norms: Norms::Before,
            query_key_norm: QueryKeyNorm::None,
            unrotated: Vec::new(),
            activation: gate?,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            query_scale: (head_dim as f64).powf(-0.5),
            attention_cap: None,
            logit_cap: None,
            embedding_scale: None,
            tied_embeddings,
            names: names::plain,
        })
    }

    /// A model that forgets what lies further back than `window` is exact as long as nothing does.
    fn within_window(mut self, window: Option<usize>) -> Self {
        self.context = self.context.min(window.unwrap_or(usize::MAX));
        self
    }
}

/// The activation that the first of `keys` names; SiLU where none is there.
fn activation(config: &Config, keys: &[&str], problems: &mut Problems) -> Option<Activation> {
    let named = keys.iter().find_map(|key| config.text(key));
    config.know(keys);
    match named {
        None | Some("silu" | "swish") => Some(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Some(Activation::GeluTanh),
        Some(other) => problems
            .add(format!("config.json: the activation {other:?} is not known; known are silu and gelu_pytorch_tanh")),
    }
}
