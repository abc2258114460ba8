//! Why models aren't there, as typed causes.

use std::path::PathBuf;

use karat_checkpoint::CheckpointError;
use karat_hub::HubError;
use karat_rules::domain::ModelName;
use karat_runtime::RuntimeError;

use crate::{manifest::ManifestError, schedule::StartError, text::TextError};

/// Why a name stands for no model that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoModel {
    /// No model has that name.
    #[error("there is no model {name:?}; the models are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names of the repository.
        known: String,
    },
    /// The model is not ready yet.
    #[error("the model {model} is still loading; try again when GET /health/ready answers 200")]
    Loading {
        /// The model.
        model: ModelName,
    },
    /// The model's engines are being built.
    #[error(
        "TensorRT is building the engines of the model {model}, which takes minutes; GET /v1/models/{model} tells when it is ready"
    )]
    Building {
        /// The model.
        model: ModelName,
    },
    /// The model is there, and not in that version.
    #[error("{name} is no version that takes requests; there are {versions}")]
    OtherVersion {
        /// What was asked for.
        name: String,
        /// The versions that are known.
        versions: String,
    },
    /// The model was taken out of memory.
    #[error("the model {model} is not loaded; POST /v1/models/{model}/load loads it")]
    Unloaded {
        /// The model.
        model: ModelName,
    },
    /// The model could not be loaded.
    #[error("the model {model} could not be loaded; GET /v1/models/{model} tells why")]
    Failed {
        /// The model.
        model: ModelName,
    },
}

/// Why a model, or the whole repository, can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The repository's folder can't be read.
    #[error("the model repository {path} can't be read: {source}; name a folder with --models")]
    Repository {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No folder of the repository holds a manifest.
    #[error("the model repository {path} holds no model; put a folder with a model.toml into it")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A model that is required isn't there.
    #[error("--require names {name}, which is no folder of --models and no --model")]
    Required {
        /// The name.
        name: ModelName,
    },
    /// Two models would have one name.
    #[error("two models are called {name}; give one another name with --model NAME=PLACE, or rename its folder")]
    Twice {
        /// The name.
        name: ModelName,
    },
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A model of the Hub can't be had.
    #[error(transparent)]
    Hub(#[from] Box<HubError>),
    /// A checkpoint can't be served, or changed while it was read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint takes more memory than there is.
    #[error(
        "{folder}: serving it takes {} MB of memory for its weights alone, and {} MB are free; free some, allow the process \
         more, or serve a smaller model",
        .needed >> 20,
        .free >> 20
    )]
    Memory {
        /// The checkpoint.
        folder: PathBuf,
        /// The bytes that it takes.
        needed: u64,
        /// The bytes that this process may still use.
        free: u64,
    },
    /// Files that decide scores were rewritten while they were read.
    #[error("{path}: its tokenizer or template changed while it was read; restart the server once it is written")]
    Changed {
        /// The model's folder.
        path: PathBuf,
    },
    /// Loading panicked, which is a bug.
    #[error("loading it failed in a way that nobody foresaw; the log tells where: please report it")]
    Panicked,
    /// The tokenizer or the template is wrong.
    #[error("{path}: {source}")]
    Text {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: TextError,
    },
    /// The graph or its provider can't start.
    #[error("{path}: {source}")]
    Runtime {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: RuntimeError,
    },
    /// A file that decides scores can't be read.
    #[error("{path}: can't be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The model gives other scores than its reference, or what is expected of it can't be read or scored.
    #[error("{path}: {reason}")]
    Expected {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A composite names a model that isn't there.
    #[error("{path}: ensemble: there is no model {member}; the repository has {known}")]
    NoMember {
        /// The manifest.
        path: PathBuf,
        /// The missing model.
        member: ModelName,
        /// The names of the repository.
        known: String,
    },
    /// A composite names a model that failed.
    #[error("{path}: ensemble: the model {member} failed to load; mend it first")]
    BrokenMember {
        /// The manifest.
        path: PathBuf,
        /// The failed model.
        member: ModelName,
    },
    /// Composites name each other in a circle.
    #[error("{path}: ensemble: the model is part of itself, by way of {members}; break the circle")]
    Circle {
        /// The manifest.
        path: PathBuf,
        /// The members that wait for each other.
        members: String,
    },
    /// A member's own rules are wrong.
    #[error("{path}: ensemble: {member}: {reason}")]
    MemberRule {
        /// The manifest.
        path: PathBuf,
        /// The member.
        member: ModelName,
        /// What is wrong.
        reason: String,
    },
    /// The workers can't start.
    #[error("{path}: {source}")]
    Workers {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: StartError,
    },
    /// The first forward pass failed.
    #[error("{path}: the graph fails on a sample of {tokens} tokens: {reason}; {}", warm_up_advice(*.shortest))]
    WarmUp {
        /// The manifest.
        path: PathBuf,
        /// The length of the sample.
        tokens: usize,
        /// Whether that was the shortest sample that was tried.
        shortest: bool,
        /// What the pass said.
        reason: String,
    },
}

/// What fails on the shortest sample fails at any length.
fn warm_up_advice(shortest: bool) -> &'static str {
    if shortest {
        "no length of samples helps: check head, graph.output and the graph's inputs against what the graph gives, or mend it"
    } else {
        "lower text.max_tokens, or mend the graph"
    }
}
