//! A graph's file, opened.

mod decoders;
mod spare;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use ::ort::session::Session;
use karat_onnx::ModelProto;
use karat_rules::domain::{ElementType, GraphSignature};

use super::{
    Library,
    contract::Contract,
    device::{DeviceExecutor, Memory},
    engines::{Engines, WeightFile},
    executor::OrtExecutor,
    given::{BuiltWeights, Weight},
    inspect::{self, Inspection, ModelFile},
    pixels::OrtPixels,
    pool::WeightShare,
    session::{self, SessionSource, Weights},
    weights,
};
use crate::{
    Executor, FileIdentity, GraphBinding, InTurns, PixelBinding, Provider, ProviderKind, Purpose, RuntimeError,
    ShapeProfile, Shapes, SkippedProvider,
};

pub use spare::{KnownNumbers, SessionTrial};

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
    /// The files that they were read from: graphs of the same file share what is the same of it.
    pub files: Vec<PathBuf>,
}

/// How a graph's sessions will be asked for: what has to be known before the first one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// How many threads the first one computes on, of a decoder or where it is the only one, if on the processor. It is
    /// started to open the graph, and kept if that many are asked for.
    pub threads: NonZeroUsize,
    /// Whether there will be no second one. Of a graph that was built in memory it is then given the weights.
    pub alone: bool,
}

impl Sessions {
    /// Any number of sessions, most of them of one thread.
    pub const SEVERAL: Self = Self { threads: NonZeroUsize::MIN, alone: false };
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
    /// The contract that the graph follows, if it says that it does.
    contract: Option<Contract>,
    weights: Arc<WeightShare>,
    /// How many threads the session computes on that the graph was opened with.
    opening_threads: NonZeroUsize,
    /// That session, until an executor takes it over.
    opening: Mutex<Option<Session>>,
    /// How many sessions were given out.
    sessions: AtomicUsize,
    /// Of which each session on the processor that is still there has a clone.
    leases: Arc<()>,
    /// Whether there is a session that several use.
    is_shared: AtomicBool,
}

impl Graph {
    pub(super) fn open(
        library: &Library,
        file: &ModelFile,
        providers: &[Provider],
        sessions: Sessions,
    ) -> Result<Self, RuntimeError> {
        let (path, model) = (file.path(), file.model());
        let origin = Origin { path, model, weight_bytes: WeightFile::total(model, path) };
        Self::on_first(library, &origin, providers, sessions, |provider, inspection| {
            let weights = match provider {
                // A decoder runs on one session, or two where it writes as well: what each packs of the weights
                // is less than a copy to lend, and the rest stays in the file's pages.
                Provider::Cpu if !Contract::is_claimed(&inspection.metadata) => {
                    let pool = library.pools.of(FileIdentity::of(path));
                    let lent = weights::read(model, path, pool)?;
                    match weights::without(model, &lent) {
                        Some(graph) => Weights::Built(BuiltWeights::lend(&graph, lent)),
                        None => Weights::Shared(lent),
                    }
                }
                Provider::Cpu | Provider::Cuda(_) | Provider::Tensorrt(_) => Weights::InFile,
            };
            Ok((weights, Engines::of_graph(library, provider, model, path)))
        })
    }

    pub(super) fn open_built(
        library: &Library,
        built: BuiltGraph,
        providers: &[Provider],
        sessions: Sessions,
    ) -> Result<Self, RuntimeError> {
        let BuiltGraph { name, model, mut weights, files } = built;
        let weight_bytes = weights.iter_mut().map(Weight::bytes).sum();
        let origin = Origin { path: &name, model: &model, weight_bytes };
        // Graphs that differ in a small file beside a large one share what is in that.
        let largest = files.iter().filter_map(|file| FileIdentity::of(file)).max_by_key(FileIdentity::length);
        let weights = BuiltWeights::new(&model, weights, &name, library.pools.of(largest))?;
        Self::on_first(library, &origin, providers, sessions, |_, _| Ok((Weights::Built(weights.clone()), None)))
    }

    /// Starts the first provider that can.
    fn on_first(
        library: &Library,
        origin: &Origin<'_>,
        providers: &[Provider],
        sessions: Sessions,
        prepare: impl Fn(&Provider, &Inspection) -> Result<(Weights, Option<Engines>), RuntimeError>,
    ) -> Result<Self, RuntimeError> {
        let inspection = inspect::inspect(origin.model);
        let is_decoder = Contract::is_claimed(&inspection.metadata);
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
                packed: Contract::claims_packed(&inspection.metadata),
            };
            // Other sessions compute side by side, on one thread each.
            let known = (is_decoder || sessions.alone) && *provider == Provider::Cpu;
            let threads = if known { sessions.threads } else { NonZeroUsize::MIN };
            match source.start(threads, 0) {
                Ok(session) => {
                    let signature = session::signature(&session, &inspection.inputs);
                    let contract = Contract::read(&inspection.metadata, &signature)?;
                    let pool = source.weights.lent().filter(|_| *provider == Provider::Cpu);
                    let pool = pool.map(|lent| Arc::clone(lent.pool()));
                    return Ok(Self {
                        source,
                        skipped,
                        inspection,
                        signature,
                        contract,
                        weights: Arc::new(WeightShare::new(origin.weight_bytes, pool)),
                        opening_threads: threads,
                        opening: Mutex::new(Some(session)),
                        sessions: AtomicUsize::new(0),
                        leases: Arc::default(),
                        is_shared: AtomicBool::new(false),
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
        self.weights.bytes()
    }

    /// Whether further sessions share the weights of the first.
    #[must_use]
    pub fn lends_weights(&self) -> bool {
        self.source.weights.lent().is_some()
    }

    /// Its weights, for those who tell of them. What other graphs of the same file share lives as long as this.
    #[must_use]
    pub fn weights(&self) -> Arc<WeightShare> {
        Arc::clone(&self.weights)
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

    /// How many ids the table holds that an input's are looked up in; `None` where the graph doesn't say.
    #[must_use]
    pub fn table_rows(&self, input: &str) -> Option<usize> {
        self.inspection.tables.get(input).copied()
    }

    /// The coarsest number format that its passes round to, by its weights and its provider's options.
    #[must_use]
    pub fn rounds_to(&self) -> ElementType {
        let provider = match &self.source.provider {
            // TF32 keeps as many digits as half precision.
            Provider::Cuda(options) if options.tf32 => ElementType::Float16,
            Provider::Tensorrt(options) if options.bf16 || options.int8 => ElementType::Bfloat16,
            Provider::Tensorrt(options) if options.fp16 => ElementType::Float16,
            Provider::Cpu | Provider::Cuda(_) | Provider::Tensorrt(_) => ElementType::Float32,
        };
        inspect::coarser(self.inspection.rounds_to, provider)
    }

    /// A session of its own for one worker, computing on `threads` threads. Where there are several GPUs, sessions
    /// take turns among them.
    ///
    /// # Errors
    /// When the binding doesn't fit the graph, or another session can't start.
    pub fn executor(&self, binding: &GraphBinding, threads: NonZeroUsize) -> Result<Box<dyn Executor>, RuntimeError> {
        let turn = self.next_turn();
        let session = self.session(threads, turn)?;
        let (devices, captures, shapes) = match &self.source.provider {
            Provider::Cpu => return Ok(self.scoring(OrtExecutor::new(session, &self.signature, binding)?)),
            Provider::Cuda(options) => {
                // Rounding a shape pads it, which such a graph's scores depend on.
                let may_pad = self.is_batch_invariant() && binding.attention_mask.is_some();
                let captures = (options.cuda_graph && may_pad).then_some(options.longest);
                let rounds = self.inspection.fused_attention && may_pad && captures.is_none();
                (&options.devices, captures, options.longest.filter(|_| rounds).map(Shapes::new))
            }
            Provider::Tensorrt(options) => (&options.devices, None, None),
        };
        let memory = Memory::Gpu(devices.of_session(turn));
        let executor = DeviceExecutor::new(session, &self.signature, binding, memory, captures)?;
        Ok(Box::new(executor.in_shapes(shapes)))
    }

    /// A session of its own for one worker of a graph that takes images, computing on `threads` threads.
    ///
    /// # Errors
    /// When the binding doesn't fit the graph, or another session can't start.
    pub fn pixel_executor(
        &self,
        binding: &PixelBinding,
        threads: NonZeroUsize,
    ) -> Result<Box<dyn Executor>, RuntimeError> {
        let session = self.session(threads, self.next_turn())?;
        Ok(self.scoring(OrtPixels::new(session, &self.signature, binding)?))
    }

    /// A session that scores, in turns with what is written where both are on the processor.
    fn scoring(&self, session: impl Executor + 'static) -> Box<dyn Executor> {
        match self.provider() {
            ProviderKind::Cpu => Box::new(self.in_turns(session, Purpose::Scoring)),
            ProviderKind::Cuda | ProviderKind::Tensorrt => Box::new(session),
        }
    }

    fn in_turns<E>(&self, session: E, purpose: Purpose) -> InTurns<E> {
        InTurns::new(session, self.source.library.turns.clone(), purpose, Arc::clone(&self.leases))
    }

    /// Ends the session that the graph was opened with, unless one of so many threads takes it over: it holds all
    /// weights.
    fn forget_opening(&self, threads: NonZeroUsize) {
        if threads != self.opening_threads {
            drop(self.opening.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    /// How many sessions were asked for before.
    fn next_turn(&self) -> usize {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// The session number `turn`.
    fn session(&self, threads: NonZeroUsize, turn: usize) -> Result<Session, RuntimeError> {
        let reusable = if threads == self.opening_threads && self.source.device(turn) == self.source.device(0) {
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
        self.source.start(self.opening_threads, 0)
    }
}

#[cfg(test)]
mod tests;
