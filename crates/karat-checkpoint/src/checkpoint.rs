//! A folder as a model: read once, with everything that stands in the way told together.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    classes::{self, Class},
    config::Config,
    graphs::{self, Graph, Parts, Tensor},
    heads::{Head, Kind},
    manifest,
    normalise::{self, Normalisation},
    problems::{CheckpointError, Problems},
    tokens::Tokens,
    trunks::{Decoder, Read, encoder::Encoder, modernbert::ModernBert},
    weights::Weights,
};

/// Tensors that a graph doesn't need: tables that are computed anew, and heads that aren't read.
const UNUSED: &[&str] = &[
    "rotary_emb.inv_freq",
    "lm_head.weight",
    "attn.bias",
    "attn.masked_bias",
    "position_ids",
    "embeddings.token_type_ids",
    "lm_predictions.",
    "mask_predictions.",
    "num_batches_tracked",
    "normalizer.",
];

/// What a configuration describes.
enum Shape {
    Decoder(Decoder),
    Encoder(Encoder),
    Modern(ModernBert),
}

/// What was decided of a checkpoint.
pub(crate) struct Decided {
    pub(crate) graph: Graph,
    pub(crate) reads: Reads,
    /// How many numbers the head gives.
    pub(crate) width: usize,
    /// The most tokens for which the graph is exact.
    pub(crate) context: usize,
    pub(crate) vocabulary: usize,
    /// How rewards are normalised, where they are.
    pub(crate) normalise: Option<Normalisation>,
    /// Whose weights stand where, if the head has some.
    pub(crate) gating: Option<Gating>,
    /// The token that every sample has to end with.
    pub(crate) last_token: Option<String>,
}

/// Where the weights of a head's objectives are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gating {
    /// Where the score is read.
    AtScore,
    /// At a mark in the text; the one that the authors' code looks for, where it is known.
    AtMark(Option<&'static str>),
}

impl Decided {
    fn of_pairs(graph: Graph, width: usize, context: usize, vocabulary: usize) -> Self {
        Self { graph, reads: Reads::Pairs, width, context, vocabulary, normalise: None, gating: None, last_token: None }
    }
}

/// What a model reads, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A score after a dialogue.
    Scores,
    /// A score at each step's mark.
    Steps,
    /// The logits of the next token.
    Logits,
    /// A score of a pair of texts.
    Pairs,
}

/// A checkpoint that can be served.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    weights: Weights,
    graph: Graph,
    manifest: Result<String, String>,
}

impl Checkpoint {
    /// Whether a folder looks like a checkpoint.
    #[must_use]
    pub fn is_one(folder: &Path) -> bool {
        folder.join("config.json").is_file()
    }

    /// Reads a folder: its configuration, the headers of its weights, and what its tokenizer says.
    ///
    /// # Errors
    /// Everything that stands in the way of serving it.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let mut problems = Problems::default();
        let checkpoint = Self::of(folder, &mut problems);
        problems.finish(folder, checkpoint)
    }

    fn of(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let config = problems.take(Config::read(folder));
        let weights = Weights::read(folder, problems);
        let tokens = Tokens::read(folder, problems);
        let config = config?;
        let (family, class) = Class::read(&config, problems)?;
        let shape = match family.read {
            Read::Decoder(read) => read(&config, problems).map(Shape::Decoder),
            Read::Encoder(read) => read(&config, problems).map(Shape::Encoder),
            Read::Modern(read) => read(&config, problems).map(Shape::Modern),
        };
        let pad_id = config.token("pad_token_id");
        let labels = labels(&config);
        let last_token = last_token(&config, tokens.as_ref(), problems);
        let mut weights = weights?;
        // What trainers wrap a model in leaves its name before every tensor's.
        for wrapper in ["module.", "_orig_mod.", "pretrained_model."] {
            weights.strip(wrapper, |name| name.starts_with("v_head."));
        }
        let normalise = normalise::read(&config, &weights, problems);
        let head = match family.read {
            Read::Decoder(_) => Head::find(class.kind, &weights, &config, problems),
            Read::Encoder(_) | Read::Modern(_) if class.kind == Kind::Sequence => None,
            Read::Encoder(_) | Read::Modern(_) => problems
                .add(format!("config.json: {}: an encoder gives rewards as a sequence classifier alone", class.name)),
        };
        config.refuse_leftovers(problems);
        let decided = match shape? {
            Shape::Decoder(trunk) => {
                let (kind, head) = head?;
                let parts = Parts {
                    trunk: &trunk,
                    head: &head,
                    kind,
                    pad_id,
                    pooling: class.pooling,
                    last_token: last_token.as_deref(),
                    weights: &weights,
                };
                let reads = match kind {
                    Kind::Sequence => Reads::Scores,
                    Kind::Token => Reads::Steps,
                    Kind::LanguageModel => Reads::Logits,
                };
                let width = head.outputs(&trunk, &weights).first().map_or(0, |(_, width)| *width);
                let rewards = head.rewards(&trunk, &weights);
                if let Some(labels) = labels.filter(|labels| reads != Reads::Logits && *labels != rewards) {
                    problems.add::<()>(format!("config.json names {labels} labels, and the head has {rewards} rows"));
                }
                let gating = match head {
                    Head::Gated(_) => Some(Gating::AtMark(gate_mark(family.model_type))),
                    Head::Weighed(_) => Some(Gating::AtScore),
                    Head::Linear(_) | Head::Mlp(_) | Head::LanguageModel => None,
                };
                let graph = graphs::prefix(&parts, problems);
                let (context, vocabulary) = (trunk.context, trunk.vocabulary);
                Decided { graph, reads, width, context, vocabulary, normalise, gating, last_token }
            }
            Shape::Encoder(encoder) => {
                let width = rows(&weights, encoder.classifier.last);
                let graph = graphs::padded(&encoder, width, &weights, problems);
                Decided::of_pairs(graph, width, encoder.context(), encoder.vocabulary)
            }
            Shape::Modern(model) => {
                let width = rows(&weights, "classifier");
                let graph = graphs::modernbert(&model, width, &weights, problems);
                Decided::of_pairs(graph, width, model.context, model.vocabulary)
            }
        };
        if let Some(labels) = labels.filter(|labels| decided.reads == Reads::Pairs && *labels != decided.width) {
            problems.add::<()>(format!("config.json names {labels} labels, and the head has {} rows", decided.width));
        }
        refuse_leftovers(&weights, &decided.graph, problems);
        let tokens = tokens?;
        tokens.check(decided.vocabulary, problems);
        classes::refuse_namesakes(folder, &tokens, problems);
        let manifest = manifest::write(class.name, &decided, &tokens);
        Some(Self { folder: folder.to_owned(), weights, graph: decided.graph, manifest })
    }

    /// The graph for a processor: of a decoder one that shares what samples begin with (`rm-prefix/1`), of an encoder one
    /// of padded rows.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The numbers of one of the graph's weights, in 32 bits.
    ///
    /// # Errors
    /// When its file has changed or holds numbers that aren't finite.
    pub fn numbers(&self, tensor: &Tensor) -> Result<Vec<f32>, CheckpointError> {
        let numbers = self.weights.numbers(&tensor.source, &tensor.rows);
        let mut numbers =
            numbers.map_err(|problem| CheckpointError { folder: self.folder.clone(), problems: vec![problem] })?;
        if tensor.plus_one {
            numbers.iter_mut().for_each(|number| *number += 1.0);
        }
        Ok(numbers)
    }

    /// The manifest that says what was decided, as TOML.
    ///
    /// # Errors
    /// When the head's numbers can mean several things, which only a person can tell apart.
    pub fn manifest(&self) -> Result<&str, CheckpointError> {
        self.manifest
            .as_deref()
            .map_err(|problem| CheckpointError { folder: self.folder.clone(), problems: vec![problem.clone()] })
    }

    /// The files that decide a score beside tokenizer and template.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.folder.join("config.json")];
        files.extend(self.weights.files.iter().cloned());
        files
    }

    /// How many numbers the graph's weights are.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.graph.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// The types in which the weights are stored, such as `BF16`.
    #[must_use]
    pub fn types(&self) -> BTreeSet<String> {
        self.weights.types()
    }
}

/// How many rows the matrix of that name has; 0 where there is none.
fn rows(weights: &Weights, name: &str) -> usize {
    weights.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied()).unwrap_or(0)
}

/// How many numbers the configuration says that the head gives.
fn labels(config: &Config) -> Option<usize> {
    let named = config.get("id2label").and_then(|labels| labels.as_object()).map(serde_json::Map::len);
    let counted =
        config.get("num_labels").and_then(serde_json::Value::as_u64).and_then(|count| usize::try_from(count).ok());
    named.or(counted)
}

/// The text at whose first token the authors' code reads a gate, in a family's own template: where the last answer begins.
fn gate_mark(model_type: &str) -> Option<&'static str> {
    (model_type == "llama").then_some("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
}

/// The token that InternLM2's reward models read their score at, and append for it.
fn last_token(config: &Config, tokens: Option<&Tokens>, problems: &mut Problems) -> Option<String> {
    let id = config.token("reward_token_id")?;
    let text = tokens?.text(id);
    if text.is_none() {
        problems.add::<()>(format!(
            "config.json: reward_token_id is {id}, and tokenizer.json has no such token; fetch the tokenizer anew"
        ));
    }
    text
}

/// Refuses tensors that the graph never reads: they are the sign of a part of the model that isn't known here.
fn refuse_leftovers(weights: &Weights, graph: &Graph, problems: &mut Problems) {
    let used: BTreeSet<&str> = graph.tensors.iter().map(|tensor| tensor.source.as_str()).collect();
    let left: Vec<&str> = weights
        .names()
        .filter(|name| {
            !used.contains(name)
                && !UNUSED
                    .iter()
                    .any(|unused| name.ends_with(unused) || (unused.ends_with('.') && name.starts_with(unused)))
        })
        .collect();
    if !left.is_empty() {
        let some = left.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        problems.add::<()>(format!("{} tensors have no place in this architecture, such as {some}", left.len()));
    }
}
