//! The manifest as it is written. The comments here are the reference page's text.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use karat_rules::{
    aggregate,
    domain::{ModelName, catalogue::Choice},
    head, transform,
};
use karat_runtime::Provider;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::{digests::Digests, ensemble::EnsembleSection};
use crate::{image::ImageConfig, text::TextConfig};

/// A model: one with graphs of its own (`[graph]`, and `[text]`, `[image]` or both), a composite of other models of the
/// repository (`[[ensemble]]`), or adapters of one base (`ensemble = { adapters = … }` and `[text]`). The model's name is
/// that of its folder.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// What the score means, in a sentence or two; listed by `GET /v1/models`.
    #[serde(default)]
    pub description: Option<String>,
    /// The licence of the weights, as an SPDX expression.
    #[serde(default)]
    pub license: Option<String>,
    /// How the graph's output becomes scores.
    #[serde(default = "default_head")]
    #[schemars(schema_with = "head_schema")]
    pub head: Choice,
    /// How the scores of the members become one, unless a request says otherwise.
    #[serde(default = "default_aggregate")]
    #[schemars(schema_with = "aggregate_schema")]
    pub aggregate: Choice,
    /// What happens to the reward after that, in order, unless a request says otherwise.
    #[serde(default)]
    #[schemars(schema_with = "transforms_schema")]
    pub transforms: Vec<Choice>,
    /// The execution providers in order of preference. A provider that can't start is an error, unless another one
    /// stands behind it; `GET /v1/models` says which one runs.
    #[serde(default = "default_providers")]
    pub providers: Vec<Provider>,
    /// The graph of the model.
    #[serde(default)]
    pub graph: Option<GraphSection>,
    /// How samples become tokens.
    #[serde(default)]
    pub text: Option<TextConfig>,
    /// How images are prepared, of models that see. With `[text]` beside it, a model that compares images with texts.
    #[serde(default)]
    pub image: Option<ImageConfig>,
    /// Lets the model write critiques (`POST /v1/critique`). Its graph must be a decoder with the output `logits`.
    #[serde(default)]
    pub critique: Option<CritiqueSection>,
    /// What a composite is made of, in order: models of this repository, or adapters of one base.
    #[serde(default)]
    pub ensemble: EnsembleSection,
    /// How the model uses the machine. Leave it out: what is left out is chosen for the machine.
    #[serde(default)]
    pub scheduling: SchedulingSection,
    /// The files that the manifest was written for: paths from the model's folder, each with `"sha256:…"`. They are read when
    /// the model is loaded, and it fails if one is another. `karat inspect FOLDER --write` writes the table.
    #[serde(default)]
    pub digests: Digests,
}

impl Manifest {
    /// The same without what is said of scores that passes have given: passes depend on the rest at most.
    pub(crate) fn of_passes(&self) -> Self {
        Self {
            description: None,
            license: None,
            aggregate: default_aggregate(),
            transforms: Vec::new(),
            digests: Digests::default(),
            ..self.clone()
        }
    }
}

/// The graph of a model.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphSection {
    /// The ONNX file, or a list of them: an ensemble of graphs that share tokenizer and template, whose scores become
    /// the members in this order.
    #[serde(default)]
    pub file: Option<FileList>,
    /// In place of a file: the folder of a Hugging Face checkpoint or of an adapter, `.` for the model's own; a model of the
    /// Hub as `hub:org/name`, with `@revision` behind it a branch, a tag or a commit; or a list of them. The graph is
    /// built from it in memory when the model is loaded. A tokenizer that isn't in the model's folder is taken from there.
    #[serde(default)]
    pub checkpoint: Option<FileList>,
    /// Of a model that compares images with texts, the ONNX file that embeds images; `file` is the one that embeds texts.
    /// A checkpoint has both. As many as there are files.
    #[serde(default)]
    pub images: Option<FileList>,
    /// The form of the graph that is built from a checkpoint. By default, on an NVIDIA GPU `packed` for models that have
    /// that form and `half_rows` for encoders and models that see, else `rows`.
    #[serde(default)]
    pub form: Option<CheckpointForm>,
    /// The names of the graph's inputs, where they differ from the usual ones.
    #[serde(default)]
    pub inputs: GraphInputs,
    /// The output (or outputs) that the head reads. By default the only output, or the one named `logits`.
    #[serde(default)]
    pub output: Option<OutputList>,
}

/// The form of a graph that is built from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckpointForm {
    /// Rows of one sample each, or of what several begin with and what follows it, in 32 bits.
    Rows,
    /// The same of encoders and of models that see, in half precision: for an NVIDIA GPU, and slow elsewhere. What is read is
    /// computed in 32 bits.
    HalfRows,
    /// All samples of a pass in one row, over blocks of keys and values: in 16 bits on an NVIDIA GPU, else in 32.
    Packed,
    /// What `packed` computes on an NVIDIA GPU, on any device: in 32 bits, rounded to 16 wherever 16 are given out there.
    /// To see what 16 bits make of a model's scores; slower than either. Decoders alone have it.
    Rounded,
}

/// One path or several, relative to the model's folder.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum FileList {
    /// One graph.
    One(PathBuf),
    /// An ensemble of graphs.
    Many(Vec<PathBuf>),
}

impl FileList {
    /// The full paths of what lies in `folder`.
    pub(crate) fn within(self, folder: &Path) -> Vec<PathBuf> {
        self.paths().into_iter().map(|path| folder.join(path)).collect()
    }

    /// The paths as they are written, in their order.
    pub(crate) fn paths(self) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![path],
            Self::Many(paths) => paths,
        }
    }
}

/// One output or several, by name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OutputList {
    /// One output.
    One(String),
    /// Several, in the order in which the head reads them.
    Many(Vec<String>),
}

/// The names of a graph's inputs. An input that the graph doesn't have is not fed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphInputs {
    /// The token ids; `input_ids` by default. Every graph of texts has it.
    #[serde(default)]
    pub input_ids: Option<String>,
    /// 1 for a token, 0 for padding; `attention_mask` by default.
    #[serde(default)]
    pub attention_mask: Option<String>,
    /// The segment of each token; `token_type_ids` by default.
    #[serde(default)]
    pub token_type_ids: Option<String>,
    /// The position of each token; `position_ids` by default.
    #[serde(default)]
    pub position_ids: Option<String>,
    /// The pixels of an image; `pixel_values` by default, or the only input of a graph of images.
    #[serde(default)]
    pub pixel_values: Option<String>,
}

/// How a model writes critiques.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CritiqueSection {
    /// What the model is asked, as the user's turn: `{prompt}` stands for what was said before the response, `{response}`
    /// for the response. What is scored afterwards is this turn with the critique as the assistant's.
    #[serde(default = "default_request")]
    pub request: String,
    /// The most tokens of a critique, unless a request says otherwise.
    #[serde(default = "default_critique_tokens")]
    pub max_tokens: NonZeroUsize,
    /// Texts that end a critique when they appear, and aren't part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Tokens that end a critique, beside the end-of-sequence token.
    #[serde(default)]
    pub end_tokens: Vec<String>,
    /// For judges that write a number: a regular expression whose first group is the number. The last match counts; a
    /// critique without one has the rating null.
    #[serde(default)]
    pub rating: Option<String>,
    /// The lowest and the highest rating; one outside is null.
    #[serde(default)]
    pub rating_range: Option<[f64; 2]>,
    /// The most critiques that are written at once.
    #[serde(default = "default_texts")]
    pub texts: NonZeroUsize,
}

/// One model of a composite.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberSection {
    /// The name of a model in this repository.
    pub model: ModelName,
    /// How that model's members become one; by default as its own manifest says.
    #[serde(default)]
    #[schemars(schema_with = "optional_aggregate_schema")]
    pub aggregate: Option<Choice>,
    /// What happens to its reward before it is combined with the others; by default as its own manifest says.
    #[serde(default)]
    #[schemars(schema_with = "optional_transforms_schema")]
    pub transforms: Option<Vec<Choice>>,
}

/// How a model uses the machine.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchedulingSection {
    /// How many sessions run at once.
    #[serde(default)]
    pub sessions: Option<NonZeroUsize>,
    /// How many threads each session uses.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// The most tokens, padding included, in one forward pass. A longer sample runs alone. Of a decoder that shares
    /// prefixes: what other samples may add to the first one of a batch, what they have in common counted once. Of packed
    /// rows: all rows of a pass.
    #[serde(default)]
    pub max_batch_tokens: Option<NonZeroUsize>,
    /// The most samples in one forward pass.
    #[serde(default)]
    pub max_batch: Option<NonZeroUsize>,
    /// The memory for keys and values of packed rows, in mebibytes, on each device: of the samples of a pass and, of a
    /// decoder, of prompts that come again. Never less than the longest sample takes.
    #[serde(default)]
    pub block_memory_mb: Option<NonZeroUsize>,
}

fn default_head() -> Choice {
    Choice::named("scalar")
}

fn default_aggregate() -> Choice {
    Choice::named("mean")
}

fn default_providers() -> Vec<Provider> {
    vec![Provider::Cpu]
}

fn default_request() -> String {
    "[Question]: {prompt}\n[Response]: {response}\n\n[Evaluation]:".to_owned()
}

fn default_critique_tokens() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(255)
}

fn default_texts() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(15)
}

fn head_schema(generator: &mut SchemaGenerator) -> Schema {
    head::CATALOGUE.schema(generator)
}

fn aggregate_schema(generator: &mut SchemaGenerator) -> Schema {
    aggregate::CATALOGUE.schema(generator)
}

fn optional_aggregate_schema(generator: &mut SchemaGenerator) -> Schema {
    aggregate_schema(generator)
}

fn transforms_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": transform::CATALOGUE.schema(generator) })
}

fn optional_transforms_schema(generator: &mut SchemaGenerator) -> Schema {
    transforms_schema(generator)
}
