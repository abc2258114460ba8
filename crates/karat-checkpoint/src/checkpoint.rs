//! A folder as a model: read once, with everything that stands in the way told together.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    adapter::Adapter,
    config::Config,
    graphs::{self, Graph, Parts, Tensor},
    heads::{Head, Kind},
    manifest,
    origin::Origin,
    problems::{CheckpointError, Problems},
    tokens::Tokens,
    trunks::{Decoder, Part, Read, TRUNKS, Trunk, encoder::Encoder, modernbert::ModernBert},
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
    "cls.predictions.",
    "cls.seq_relationship.",
    "lm_head.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
];

/// The classes that are known beside those that Transformers has for every family, and what they give.
const KINDS: &[(&str, Kind)] = &[
    ("ForSequenceClassification", Kind::Sequence),
    ("ForRewardModel", Kind::Sequence),
    ("ForTokenClassification", Kind::Token),
    ("ForProcessRewardModel", Kind::Token),
    ("ForCausalLM", Kind::LanguageModel),
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
    /// Mean and deviation, where rewards are given as distances from the mean.
    pub(crate) normalise: Option<(f64, f64)>,
}

impl Decided {
    fn of_pairs(graph: Graph, width: usize, context: usize, vocabulary: usize) -> Self {
        Self { graph, reads: Reads::Pairs, width, context, vocabulary, normalise: None }
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
    origin: Origin,
    adapter: Option<PathBuf>,
    weights: Weights,
    graph: Graph,
    manifest: Result<String, String>,
}

impl Checkpoint {
    /// Reads a checkpoint: its configuration, the headers of its weights, and what its tokenizer says; of an adapter, that
    /// of the model it changes, with the changes.
    ///
    /// # Errors
    /// Everything that stands in the way of serving it.
    pub fn read(origin: &Origin) -> Result<Self, CheckpointError> {
        let mut problems = Problems::default();
        let checkpoint = Self::of(origin, &mut problems);
        problems.finish(origin.folder(), checkpoint)
    }

    fn of(origin: &Origin, problems: &mut Problems) -> Option<Self> {
        let config = problems.take(Config::read(origin.model()));
        let weights = Weights::read(origin.model(), problems);
        let adapter = if origin.is_adapter() { Some(problems.take(Adapter::read(origin.folder()))?) } else { None };
        let tokens = Tokens::read(tokenizer(origin), problems);
        let config = config?;
        let task = adapter.as_ref().and_then(|adapter| adapter.class_ending(problems));
        let (family, class, kind) = class(&config, task, problems)?;
        let shape = match family.read {
            Read::Decoder(read) => read(&config, problems).map(Shape::Decoder),
            Read::Encoder(read) => read(&config, problems).map(Shape::Encoder),
            Read::Modern(read) => read(&config, problems).map(Shape::Modern),
        };
        let pad_id = config.token("pad_token_id");
        let normalise = normalisation(&config);
        // A task that was chosen for an adapter says nothing of its base's labels.
        let labels = labels(&config).filter(|_| task.is_none());
        let mut weights = weights?;
        // What trainers wrap a model in leaves its name before every tensor's.
        for wrapper in ["module.", "_orig_mod.", "pretrained_model."] {
            weights.strip(wrapper, |name| name.starts_with("v_head."));
        }
        if let Some(adapter) = &adapter {
            adapter.apply(&mut weights, problems);
        }
        let head = match family.read {
            Read::Decoder(_) => Head::find(kind, &weights, &config, problems),
            Read::Encoder(_) | Read::Modern(_) if kind == Kind::Sequence => None,
            Read::Encoder(_) | Read::Modern(_) => {
                problems.add(format!("config.json: {class}: an encoder gives rewards as a sequence classifier alone"))
            }
        };
        config.refuse_leftovers(problems);
        let decided = match shape? {
            Shape::Decoder(trunk) => {
                let (kind, head) = head?;
                let table = trunk.piece(0, Part::Embeddings).tensor;
                if kind == Kind::LanguageModel
                    && trunk.tied_embeddings
                    && weights.is_updated(&format!("{table}.weight"))
                {
                    problems.add::<()>(format!(
                        "the adapter changes {table}, from which the logits are taken too: merge it in PEFT and serve that"
                    ));
                }
                // A score of these stands at the last token that isn't padding; others read the last token.
                let pad_id = pad_id.filter(|_| kind == Kind::Sequence && class.ends_with("ForSequenceClassification"));
                let parts = Parts { trunk: &trunk, head: &head, kind, pad_id, weights: &weights };
                let reads = match kind {
                    Kind::Sequence => Reads::Scores,
                    Kind::Token => Reads::Steps,
                    Kind::LanguageModel => Reads::Logits,
                };
                let width = head.width(&trunk, &weights);
                let graph = graphs::prefix(&parts, problems);
                Decided { graph, reads, width, context: trunk.context, vocabulary: trunk.vocabulary, normalise }
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
        if decided.reads != Reads::Logits
            && let Some(labels) = labels.filter(|labels| *labels != decided.width)
        {
            problems.add::<()>(format!("config.json names {labels} labels, and the head has {} rows", decided.width));
        }
        refuse_leftovers(&weights, &decided.graph, problems);
        let tokens = tokens?;
        tokens.check(decided.vocabulary, problems);
        let manifest = manifest::write(&class, &decided, &tokens);
        let adapter = adapter.map(|adapter| adapter.file());
        Some(Self { origin: origin.clone(), adapter, weights, graph: decided.graph, manifest })
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
        let mut numbers = numbers.map_err(|problem| self.error(problem))?;
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
        self.manifest.as_deref().map_err(|problem| self.error(problem.clone()))
    }

    fn error(&self, problem: String) -> CheckpointError {
        CheckpointError { folder: self.origin.folder().to_owned(), problems: vec![problem] }
    }

    /// The files that decide a score beside tokenizer and template.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.origin.model().join("config.json")];
        files.extend(self.adapter.clone());
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

/// The folder of the tokenizer: an adapter's own, or the one that its base came with.
fn tokenizer(origin: &Origin) -> &Path {
    origin.folders().find(|folder| folder.join("tokenizer.json").is_file()).unwrap_or_else(|| origin.folder())
}

/// The family, the class and what it gives; `task` is what the class ends with where an adapter chose one.
fn class(config: &Config, task: Option<&str>, problems: &mut Problems) -> Option<(&'static Trunk, String, Kind)> {
    let model_type = config.text("model_type").unwrap_or_default();
    let known = || TRUNKS.iter().map(|trunk| trunk.model_type).collect::<Vec<_>>().join(", ");
    let Some(trunk) = TRUNKS.iter().find(|trunk| trunk.model_type == model_type) else {
        return problems.add(format!("config.json: model_type {model_type:?} is not known; known are {}", known()));
    };
    let classes = config.get("architectures").and_then(|classes| classes.as_array());
    let own = || classes.and_then(|classes| classes.first()?.as_str()).unwrap_or_default().to_owned();
    let class = task.map_or_else(own, |task| format!("{}{task}", trunk.class));
    // The names of known classes are taken at their word; the code that may lie beside them is never run.
    config.know(&["auto_map"]);
    let kind = KINDS.iter().find(|(suffix, _)| class.strip_suffix(suffix) == Some(trunk.class));
    let Some((_, kind)) = kind else {
        let wanted: Vec<String> = KINDS.iter().map(|(suffix, _)| format!("{}{suffix}", trunk.class)).collect();
        return problems.add(format!(
            "config.json: the class {class:?} is not known, and code that comes with a checkpoint is never run; known \
             are {}",
            wanted.join(", ")
        ));
    };
    Some((trunk, class, *kind))
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

/// OpenRLHF's mean and deviation, where rewards are to be given as distances from the mean.
fn normalisation(config: &Config) -> Option<(f64, f64)> {
    let (mean, deviation) = (config.number("mean"), config.number("std"));
    if !config.is_on("normalize_reward") {
        return None;
    }
    mean.zip(deviation).filter(|(_, deviation)| *deviation > 0.0)
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
