//! A graph's file, opened.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use ::ort::session::Session;
use karat_onnx::ModelProto;
use karat_rules::domain::{GraphSignature, TensorSpec};

use super::{
    Library,
    contract::Contract,
    decoder::OrtDecoder,
    device::{DeviceExecutor, Memory},
    engines::{Engines, WeightFile},
    executor::OrtExecutor,
    inspect::{self, Inspection},
    session::{self, SessionSource},
    weights::{GivenWeights, SharedWeights, Weights},
};
use crate::{
    DecoderExecutor, DecoderShape, Executor, GraphBinding, Padding, Provider, ProviderKind, RuntimeError, ShapeProfile,
    SkippedProvider, TextNeeds,
};

/// Which graph to open, and on what.
#[derive(Debug, Clone, Copy)]
pub struct GraphFile<'a> {
    /// The ONNX file.
    pub path: &'a Path,
    /// The providers in order of preference. One that can't start is passed over only when another follows it.
    pub providers: &'a [Provider],
}

/// A graph that was built in memory: nothing of it depends on a file.
#[derive(Debug)]
pub struct BuiltGraph {
    /// What messages call it, and beside what is kept that was measured of it.
    pub name: PathBuf,
    /// The graph; the tensors that `weights` hold are external data.
    pub model: ModelProto,
    /// Its weights.
    pub weights: Vec<Weight>,
}

/// A weight of a graph that was built in memory.
#[derive(Debug)]
pub struct Weight {
    /// Its name in the graph.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, row by row: as many as the shape has places.
    pub numbers: Vec<f32>,
}

/// What a graph is opened from.
struct Origin<'a> {
    path: &'a Path,
    model: &'a ModelProto,
    weight_bytes: u64,
}

/// A graph that can be run.
#[derive(Debug)]
pub struct Graph {
    source: SessionSource,
    skipped: Vec<SkippedProvider>,
    inspection: Inspection,
    signature: GraphSignature,
    /// The contract for sharing prefixes, where the graph follows it.
    contract: Option<Contract>,
    weight_bytes: u64,
    /// The session that the graph was opened with, until an executor takes it over.
    opening: Mutex<Option<Session>>,
    /// How many sessions were given out.
    sessions: AtomicUsize,
}

/// Parallel sessions compute on one thread each, so the opening session is made to be reused as one of them.
const OPENING_THREADS: NonZeroUsize = NonZeroUsize::MIN;

impl Graph {
    pub(super) fn open(library: &Library, file: &GraphFile<'_>) -> Result<Self, RuntimeError> {
        let model = inspect::read(file.path)?;
        let origin = Origin { path: file.path, model: &model, weight_bytes: WeightFile::total(&model, file.path) };
        Self::on_first(library, &origin, file.providers, |provider, inspection| {
            let weights = match provider {
                // A decoder runs on one session, or two where it writes as well: what each packs of the weights
                // is less than a copy to lend, and the rest stays in the file's pages.
                Provider::Cpu if !Contract::is_claimed(&inspection.metadata) => {
                    Some(Weights::Shared(SharedWeights::read(&model, file.path)?))
                }
                Provider::Cpu | Provider::Cuda(_) | Provider::Tensorrt(_) => None,
            };
            Ok((weights, Engines::of_graph(library, provider, &model, file.path)))
        })
    }

    pub(super) fn open_built(
        library: &Library,
        built: BuiltGraph,
        providers: &[Provider],
    ) -> Result<Self, RuntimeError> {
        let BuiltGraph { name, model, weights } = built;
        let numbers: usize = weights.iter().map(|weight| weight.numbers.len()).sum();
        let origin = Origin { path: &name, model: &model, weight_bytes: (numbers * size_of::<f32>()) as u64 };
        let given = Arc::new(GivenWeights::new(&model, weights, &name)?);
        Self::on_first(library, &origin, providers, |_, _| Ok((Some(Weights::Given(Arc::clone(&given))), None)))
    }

    /// Starts the first provider that can.
    fn on_first(
        library: &Library,
        origin: &Origin<'_>,
        providers: &[Provider],
        prepare: impl Fn(&Provider, &Inspection) -> Result<(Option<Weights>, Option<Engines>), RuntimeError>,
    ) -> Result<Self, RuntimeError> {
        let inspection = inspect::inspect(origin.model);
        let mut skipped = Vec::new();
        for (number, provider) in providers.iter().enumerate() {
            let behind = providers.get(number + 1..).unwrap_or_default();
            let (weights, engines) = prepare(provider, &inspection)?;
            let source = SessionSource {
                library: library.clone(),
                path: origin.path.to_owned(),
                provider: provider.clone(),
                inputs: inspection.inputs.clone(),
                behind: behind.to_vec(),
                engines,
                weights,
            };
            match source.start(OPENING_THREADS, 0) {
                Ok(session) => {
                    let signature = session::signature(&session);
                    let contract = Contract::read(&inspection.metadata, &signature)?;
                    return Ok(Self {
                        source,
                        skipped,
                        inspection,
                        signature,
                        contract,
                        weight_bytes: origin.weight_bytes,
                        opening: Mutex::new(Some(session)),
                        sessions: AtomicUsize::new(0),
                    });
                }
                Err(RuntimeError::Provider { provider, reason, .. }) if !behind.is_empty() => {
                    tracing::warn!(graph = %origin.path.display(), %provider, %reason, "provider skipped");
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

    /// How many GPUs it runs on; 1 for the processor.
    #[must_use]
    pub fn devices(&self) -> NonZeroUsize {
        self.source.provider.devices()
    }

    /// The shapes that it takes, if it doesn't take all.
    #[must_use]
    pub fn profile(&self) -> Option<&ShapeProfile> {
        self.source.provider.profile()
    }

    /// How many bytes its weights take, by the sizes of its files.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// The providers that were preferred to the one that runs, each with why it can't start.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedProvider] {
        &self.skipped
    }

    /// Whether a score is the same whatever it is batched with. It isn't where an operator quantises activations over
    /// the whole batch, unless a sample runs alone and unpadded.
    #[must_use]
    pub fn is_batch_invariant(&self) -> bool {
        self.inspection.dynamic_quantisation.is_empty()
    }

    /// A session of its own for one worker, computing on `threads` threads. Where there are several GPUs, sessions
    /// take turns among them.
    ///
    /// # Errors
    /// When the binding doesn't fit the graph, or another session can't start.
    pub fn executor(&self, binding: &GraphBinding, threads: NonZeroUsize) -> Result<Box<dyn Executor>, RuntimeError> {
        let turn = self.next_turn();
        let session = self.session(threads, turn)?;
        let (devices, captures) = match &self.source.provider {
            Provider::Cpu => return Ok(Box::new(OrtExecutor::new(session, &self.signature, binding)?)),
            Provider::Cuda(options) => {
                // Rounding a shape pads it, which such a graph's scores depend on.
                let captures = (options.cuda_graph && self.is_batch_invariant()).then_some(options.longest);
                (&options.devices, captures)
            }
            Provider::Tensorrt(options) => (&options.devices, None),
        };
        let memory = Memory::Gpu(devices.of_session(turn));
        Ok(Box::new(DeviceExecutor::new(session, &self.signature, binding, memory, captures)?))
    }

    /// The measures of the model, where the graph follows the contract for sharing prefixes, `rm-prefix/1`.
    #[must_use]
    pub fn decoder_shape(&self) -> Option<DecoderShape> {
        self.contract.as_ref().map(|contract| contract.shape)
    }

    /// Where the score of a decoder's text stands, if its exporter names a token that it takes for padding.
    #[must_use]
    pub fn decoder_padding(&self) -> Option<Padding> {
        self.contract.as_ref().and_then(|contract| contract.padding)
    }

    /// What a decoder's texts must hold; nothing of a graph that is none.
    #[must_use]
    pub fn decoder_needs(&self) -> TextNeeds {
        self.contract.as_ref().map(|contract| contract.needs.clone()).unwrap_or_default()
    }

    /// The outputs that a decoder gives at each token that is read, of shape `[positions, width]`.
    #[must_use]
    pub fn decoder_outputs(&self) -> &[TensorSpec] {
        self.contract.as_ref().map_or(&[], |contract| &contract.outputs)
    }

    /// A session of its own for one worker of a decoder, computing on `threads` threads and reading `outputs`.
    ///
    /// # Errors
    /// When the graph doesn't follow the contract for sharing prefixes, has no such output, or another session can't
    /// start.
    pub fn decoder_executor(
        &self,
        outputs: &[String],
        threads: NonZeroUsize,
    ) -> Result<Box<dyn DecoderExecutor>, RuntimeError> {
        let contract = self.contract.clone().ok_or_else(|| RuntimeError::Binding {
            found: "the graph doesn't say that it follows the contract rm-prefix/1".to_owned(),
            advice: "export it with karat's exporter, or use a head that needs no causal model".to_owned(),
        })?;
        if threads != OPENING_THREADS {
            // Nobody will take it over, and it holds all weights.
            drop(self.opening.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        Ok(Box::new(OrtDecoder::new(self.session(threads, self.next_turn())?, contract, outputs)?))
    }

    /// How many sessions were asked for before.
    fn next_turn(&self) -> usize {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// The session number `turn`.
    fn session(&self, threads: NonZeroUsize, turn: usize) -> Result<Session, RuntimeError> {
        let reusable = if threads == OPENING_THREADS && self.source.device(turn) == self.source.device(0) {
            self.opening.lock().unwrap_or_else(PoisonError::into_inner).take()
        } else {
            None
        };
        match reusable {
            Some(session) => Ok(session),
            None => self.source.start(threads, turn),
        }
    }

    #[cfg(test)]
    pub(super) fn new_session(&self) -> Result<Session, RuntimeError> {
        self.source.start(OPENING_THREADS, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{DataType, GraphWriter, library},
        *,
    };
    use crate::CudaOptions;

    fn graph() -> GraphWriter {
        GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .cast("input_ids", "scores", DataType::Float)
            .output("scores", DataType::Float, &["batch", "tokens"])
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
