//! A graph's file, opened.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ::ort::{
    ErrorCode,
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, ValueType},
};

use super::{
    Library,
    causal::OrtCausal,
    contract::Contract,
    executor::OrtExecutor,
    inspect::{self, Inspection},
    preload::preload,
    provider,
    weights::SharedWeights,
};
use crate::{
    domain::{Dimension, ElementType, GraphSignature, TensorSpec},
    runtime::{
        CausalExecutor, CausalShape, Executor, GraphBinding, Provider, ProviderKind, RuntimeError, SkippedProvider,
    },
};

/// Which graph to open, and on what.
#[derive(Debug, Clone, Copy)]
pub struct GraphFile<'a> {
    /// The ONNX file.
    pub path: &'a Path,
    /// The providers in order of preference. One that can't start is passed over only when another follows it.
    pub providers: &'a [Provider],
}

/// A graph that can be run.
#[derive(Debug)]
pub struct Graph {
    source: Source,
    skipped: Vec<SkippedProvider>,
    inspection: Inspection,
    signature: GraphSignature,
    /// The contract for sharing prefixes, where the graph follows it.
    contract: Option<Contract>,
    /// The session that the graph was opened with, until an executor takes it over.
    opening: Mutex<Option<Session>>,
}

/// What every session of a graph is made from.
#[derive(Debug)]
struct Source {
    library: Library,
    path: PathBuf,
    provider: Provider,
    inputs: Vec<String>,
    /// Held once for all sessions, where they run on the processor.
    weights: Option<SharedWeights>,
}

/// One thread a session is what a crowd of requests runs on, so the opening session is made to be reused there.
const OPENING_THREADS: NonZeroUsize = NonZeroUsize::MIN;

impl Graph {
    pub(super) fn open(library: &Library, file: &GraphFile<'_>) -> Result<Self, RuntimeError> {
        let model = inspect::read(file.path)?;
        let inspection = inspect::inspect(&model);
        let mut skipped = Vec::new();
        let mut preferred = file.providers.iter().peekable();
        while let Some(provider) = preferred.next() {
            let weights = match provider {
                Provider::Cpu => Some(SharedWeights::read(&model, file.path)?),
                Provider::Cuda(_) | Provider::Tensorrt(_) => None,
            };
            let source = Source {
                library: library.clone(),
                path: file.path.to_owned(),
                provider: provider.clone(),
                inputs: inspection.inputs.clone(),
                weights,
            };
            match source.start(OPENING_THREADS) {
                Ok(session) => {
                    let signature = GraphSignature {
                        inputs: session.inputs().iter().map(specification).collect(),
                        outputs: session.outputs().iter().map(specification).collect(),
                    };
                    let contract = Contract::read(&inspection.metadata, &signature)?;
                    let opening = Mutex::new(Some(session));
                    return Ok(Self { source, skipped, inspection, signature, contract, opening });
                }
                Err(RuntimeError::Provider { provider, reason, .. }) if preferred.peek().is_some() => {
                    tracing::warn!(graph = %file.path.display(), %provider, %reason, "provider skipped");
                    skipped.push(SkippedProvider { provider, reason });
                }
                Err(error) => return Err(error),
            }
        }
        Err(RuntimeError::NoProvider)
    }

    /// What the graph takes and gives.
    #[must_use]
    pub fn signature(&self) -> &GraphSignature {
        &self.signature
    }

    /// The provider that really runs.
    #[must_use]
    pub fn provider(&self) -> ProviderKind {
        self.source.provider.kind()
    }

    /// The providers that were preferred to the one that runs, each with why it can't start.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedProvider] {
        &self.skipped
    }

    /// The operators that quantise activations over the whole batch; empty for most graphs.
    ///
    /// With any of them a sample's score depends on what it is batched with, unless it runs alone and unpadded.
    #[must_use]
    pub fn dynamic_quantisation(&self) -> &[String] {
        &self.inspection.dynamic_quantisation
    }

    /// Whether a score is the same whatever it is batched with.
    #[must_use]
    pub fn is_batch_invariant(&self) -> bool {
        self.inspection.dynamic_quantisation.is_empty()
    }

    /// A session of its own for one worker, computing on `threads` threads.
    ///
    /// # Errors
    /// When the binding doesn't fit the graph, or another session can't start.
    pub fn executor(&self, binding: &GraphBinding, threads: NonZeroUsize) -> Result<Box<dyn Executor>, RuntimeError> {
        Ok(Box::new(OrtExecutor::new(self.session(threads)?, &self.signature, binding, &self.source.provider)?))
    }

    /// The measures of the model, where the graph follows the contract for sharing prefixes, `rm-prefix/1`.
    #[must_use]
    pub fn causal_shape(&self) -> Option<CausalShape> {
        self.contract.as_ref().map(|contract| contract.shape)
    }

    /// The token that a causal model takes for padding, if its exporter says so: its score stands at the last token
    /// that is another one.
    #[must_use]
    pub fn causal_pad_id(&self) -> Option<u32> {
        self.contract.as_ref().and_then(|contract| contract.pad_id)
    }

    /// The outputs that a causal model gives at each token that is read, of shape `[positions, width]`.
    #[must_use]
    pub fn causal_outputs(&self) -> &[TensorSpec] {
        self.contract.as_ref().map_or(&[], |contract| &contract.outputs)
    }

    /// A session of its own for one worker of a causal model, computing on `threads` threads and reading `outputs`.
    ///
    /// # Errors
    /// When the graph doesn't follow the contract for sharing prefixes, has no such output, or another session can't
    /// start.
    pub fn causal_executor(
        &self,
        outputs: &[String],
        threads: NonZeroUsize,
    ) -> Result<Box<dyn CausalExecutor>, RuntimeError> {
        let contract = self.contract.clone().ok_or_else(|| RuntimeError::Binding {
            found: "the graph doesn't say that it follows the contract rm-prefix/1".to_owned(),
            wanted: "export it with karat's exporter, or use a head that needs no causal model".to_owned(),
        })?;
        Ok(Box::new(OrtCausal::new(self.session(threads)?, contract, outputs)?))
    }

    fn session(&self, threads: NonZeroUsize) -> Result<Session, RuntimeError> {
        let reusable = if threads == OPENING_THREADS {
            self.opening.lock().unwrap_or_else(PoisonError::into_inner).take()
        } else {
            None
        };
        match reusable {
            Some(session) => Ok(session),
            None => self.source.start(threads),
        }
    }
}

impl Source {
    fn start(&self, threads: NonZeroUsize) -> Result<Session, RuntimeError> {
        let unavailable = |error| provider::explain(self.provider.kind(), error, self.library.path());
        let unloadable = |error: ::ort::Error| RuntimeError::Graph { path: self.path.clone(), cause: error.into() };
        let mut builder = Session::builder(&self.library.environment)
            .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
            .and_then(|builder| Ok(builder.with_intra_threads(threads.get())?))
            // Threads that spin between operators burn cores that other sessions and programs need: with spinning,
            // one client got 0.81 of the rate that two busy sessions reach on two idle cores, and as little as 0.3
            // beside another program; without, 0.95 and 0.8.
            .and_then(|builder| Ok(builder.with_intra_op_spinning(false)?))
            .map_err(unloadable)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        preload(self.provider.kind(), self.library.path());
        if let Some(dispatch) = provider::dispatch(&self.provider, folder, &self.inputs) {
            builder = builder.with_execution_providers([dispatch]).map_err(|error| unavailable(error.into()))?;
        }
        if let Some(weights) = &self.weights {
            builder = weights.lend(builder).map_err(unloadable)?;
        }
        builder.commit_from_file(&self.path).map_err(|error| match (&self.provider, error.code()) {
            (Provider::Cpu, _)
            | (_, ErrorCode::InvalidGraph | ErrorCode::InvalidProtobuf | ErrorCode::NoModel | ErrorCode::NoSuchFile) => {
                unloadable(error)
            }
            // A GPU is first touched here: a driver or device that is missing shows now.
            _ => unavailable(error),
        })
    }
}

fn specification(outlet: &Outlet) -> TensorSpec {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let element = match ty {
                TensorElementType::Float32 => ElementType::Float32,
                TensorElementType::Float16 => ElementType::Float16,
                TensorElementType::Bfloat16 => ElementType::Bfloat16,
                TensorElementType::Int64 => ElementType::Int64,
                TensorElementType::Int32 => ElementType::Int32,
                _ => ElementType::Other,
            };
            let shape = shape
                .iter()
                .zip(dimension_symbols.iter())
                .map(|(&size, symbol)| match usize::try_from(size) {
                    Ok(size) => Dimension::Fixed(size),
                    Err(_) => Dimension::Dynamic(symbol.to_string()),
                })
                .collect();
            (element, shape)
        }
        _ => (ElementType::Other, Vec::new()),
    };
    TensorSpec { name: outlet.name().to_owned(), element, shape }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{FLOAT, GraphWriter, INT64, library},
        *,
    };
    use crate::runtime::CudaOptions;

    fn graph() -> GraphWriter {
        GraphWriter::default()
            .input("input_ids", INT64, &["batch", "tokens"])
            .node("Cast", &["input_ids"], "scores", &[("to", i64::from(FLOAT))])
            .output("scores", FLOAT, &["batch", "tokens"])
    }

    fn open(providers: &[Provider]) -> Result<Graph, RuntimeError> {
        let (_folder, path) = graph().write();
        library().open(&GraphFile { path: &path, providers })
    }

    #[test]
    fn the_signature_is_read_from_the_file() {
        let graph = open(&[Provider::Cpu]).unwrap();
        assert_eq!(graph.signature().inputs[0].to_string(), "input_ids int64[batch, tokens]");
        assert_eq!(graph.signature().outputs[0].to_string(), "scores float32[batch, tokens]");
        assert_eq!(graph.provider(), ProviderKind::Cpu);
        assert!(graph.skipped().is_empty() && graph.is_batch_invariant());
    }

    #[test]
    fn a_provider_that_can_not_start_is_an_error_unless_another_follows() {
        // The library of `make setup` is the processor's, so CUDA can't start from it on any machine.
        let cuda = || Provider::Cuda(CudaOptions::default());
        let error = open(&[cuda()]).unwrap_err().to_string();
        assert!(error.contains("\"cuda\"") && error.contains(".so"), "names the library: {error}");
        let graph = open(&[Provider::Cpu, cuda()]).unwrap();
        assert_eq!(graph.provider(), ProviderKind::Cpu);

        let graph = open(&[cuda(), ProviderKind::Tensorrt.into(), Provider::Cpu]).unwrap();
        assert_eq!(graph.provider(), ProviderKind::Cpu);
        let skipped: Vec<_> = graph.skipped().iter().map(|skipped| skipped.provider).collect();
        assert_eq!(skipped, [ProviderKind::Cuda, ProviderKind::Tensorrt]);
        assert!(graph.skipped().iter().all(|skipped| skipped.reason.contains(".so")), "{:?}", graph.skipped());
        assert!(matches!(open(&[]), Err(RuntimeError::NoProvider)));
    }

    #[test]
    fn a_file_that_is_no_graph_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/nowhere/model.onnx")] {
            let result = library().open(&GraphFile { path, providers: &[Provider::Cpu] });
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
