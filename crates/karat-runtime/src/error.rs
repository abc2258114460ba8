//! What can go wrong below the scheduler.

use std::{error::Error, path::PathBuf};

use super::ProviderKind;

/// A cause from the runtime itself, kept whole.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// Why a graph can't be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// ONNX Runtime is not installed where karat looks.
    #[error(
        "the ONNX Runtime library was not found; looked at {}; run `make setup`, or `pip install onnxruntime` and name its \
         libonnxruntime.so with --onnxruntime",
        list(.searched)
    )]
    LibraryMissing {
        /// Every place that was tried, in order.
        searched: Vec<PathBuf>,
    },
    /// The library is there but can't be used: damaged, for another machine, or too old.
    #[error("the ONNX Runtime library {} can't be used: {cause}; run `make setup` to install the right one", .path.display())]
    LibraryUnusable {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        #[source]
        cause: Cause,
    },
    /// A process can hold one library, and holds another than the one that is asked for.
    #[error("the ONNX Runtime library {} is loaded already; it can't be replaced by {}", .loaded.display(), .wanted.display())]
    LibraryLoaded {
        /// The file in use.
        loaded: PathBuf,
        /// The file that was asked for.
        wanted: PathBuf,
    },
    /// The graph's file can't be read as a graph.
    #[error("the graph {} can't be loaded: {cause}", .path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What the reader or ONNX Runtime said.
        #[source]
        cause: Cause,
    },
    /// The last provider in the manifest's list can't start.
    #[error("provider \"{provider}\" can't start: {reason}; {advice}")]
    Provider {
        /// What was asked for.
        provider: ProviderKind,
        /// What is missing, in one sentence.
        reason: String,
        /// What to install, or what to write instead.
        advice: String,
        /// What ONNX Runtime said.
        #[source]
        cause: Cause,
    },
    /// The manifest names no provider at all.
    #[error("the list of providers is empty; write [\"cpu\"]")]
    NoProvider,
    /// A binding doesn't fit the graph.
    #[error("{found}; {advice}")]
    Binding {
        /// What the graph has.
        found: String,
        /// What to write or export instead.
        advice: String,
    },
    /// An output came out in another shape than its signature allows.
    #[error("output {name:?} has the shape {found:?} for a batch of {samples} samples padded to {tokens} tokens")]
    Shape {
        /// The output.
        name: String,
        /// Its shape as returned.
        found: Vec<i64>,
        /// How many samples were run.
        samples: usize,
        /// How many positions each was padded to.
        tokens: usize,
    },
    /// A row of a decoder contradicts itself or the model.
    #[error("the row can't be computed: {reason}")]
    Row {
        /// What is wrong.
        reason: String,
    },
    /// The forward pass failed.
    #[error("the forward pass failed: {cause}")]
    Pass {
        /// What ONNX Runtime said.
        #[source]
        cause: Cause,
    },
    /// A pass gave a number that is not finite. Nothing of it can be used: what is no number spreads to whoever shares
    /// the row, since a weight of 0 times no number is none either.
    #[error(
        "the model computed a number that is not finite (NaN or infinity); if other samples score well, this one \
         overflows the graph's number format: serve the model in single precision"
    )]
    NotFinite,
    /// The device's memory doesn't hold the pass. A smaller batch may fit.
    #[error(
        "the device ran out of memory in a pass of {samples} samples padded to {tokens} tokens: {cause}; lower \
         scheduling.max_batch_tokens or text.max_tokens, or raise the provider's memory_limit_mb"
    )]
    OutOfMemory {
        /// How many samples were run.
        samples: usize,
        /// How many positions each was padded to.
        tokens: usize,
        /// What ONNX Runtime said.
        #[source]
        cause: Cause,
    },
    /// The device's memory doesn't hold so many blocks of keys and values.
    #[error(
        "{blocks} blocks of keys and values, {bytes} bytes, don't fit into the device's memory: {cause}; ask for fewer \
         (scheduling.block_memory_mb). Each of several devices holds the whole model: layers are not split among them"
    )]
    Blocks {
        /// How many blocks were asked for.
        blocks: usize,
        /// What they take.
        bytes: usize,
        /// What ONNX Runtime said.
        #[source]
        cause: Cause,
    },
    /// The pass was stopped on request.
    #[error("the forward pass was cancelled")]
    Cancelled,
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
