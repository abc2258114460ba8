//! Chooses how a graph uses the machine: as its manifest says, as an earlier start measured, as suits most models until it
//! can be measured, or, on a GPU, by measuring now.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use karat_rules::domain::TokenizedInput;
use karat_runtime::{
    BatchLimits, GraphBinding, ProviderKind, RuntimeError,
    libraries::graphics,
    ort::{Graph, Library, Sessions},
};

use super::decoder::is_alone;
use crate::{
    manifest::{GraphDefinition, SchedulingSection},
    repository::{GraphForm, machine::Awaited},
    schedule::{
        Executors, Policy,
        calibrate::{Calibrated, Calibration, Conditions, Hardware, MakeExecutor, calibrate, plan_shapes},
        trial::Trial,
    },
};

/// The most positions of a batch on a GPU unless the manifest says otherwise: enough to fill it, little enough to fit.
const MAX_BATCH_TOKENS: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 16) - 1);
/// The same for each core of a processor, whose caches hold no more. A graph is tried with batches that large before it
/// serves, and measured later.
const TOKENS_A_CORE: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 9) - 1);

/// The weights that may lie on a GPU twice.
pub(super) const SMALL_WEIGHTS: u64 = 2 << 30;
const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// The positions that a TensorRT engine is built for unless the manifest says otherwise: it reserves memory for them.
const ENGINE_TOKENS: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 14) - 1);

/// What the manifest says of batches.
pub(super) fn batch_limits(written: &SchedulingSection, longest: NonZeroUsize) -> BatchLimits {
    BatchLimits { longest, positions: written.max_batch_tokens.unwrap_or(ENGINE_TOKENS), samples: written.max_batch }
}

/// How the sessions of an encoder of padded rows will be asked for: as many as the manifest says, or else several, of
/// which nobody knows yet how many.
pub(super) fn sessions(definition: &GraphDefinition) -> Sessions {
    match by_hand(&definition.scheduling, cores()) {
        Some((sessions, threads)) if is_alone(definition, sessions) => Sessions { threads, alone: true },
        _ => Sessions::SEVERAL,
    }
}

/// How many sessions of how many threads the manifest asks for, where it says either.
fn by_hand(written: &SchedulingSection, cores: NonZeroUsize) -> Option<(NonZeroUsize, NonZeroUsize)> {
    if written.sessions.is_none() && written.threads.is_none() {
        return None;
    }
    let threads = written.threads.unwrap_or(NonZeroUsize::MIN);
    let fitting = NonZeroUsize::new(cores.get() / threads).unwrap_or(NonZeroUsize::MIN);
    Some((written.sessions.unwrap_or(fitting), threads))
}

/// What the manifest says of a graph of texts that has one of images beside it; where it leaves that open, a session of one
/// thread on each core, as images have. Their passes run side by side, and a session on all cores would spin against them.
pub(super) fn beside_images(written: &SchedulingSection, graph: &Graph) -> SchedulingSection {
    let open = graph.provider() == ProviderKind::Cpu && by_hand(written, cores()).is_none();
    SchedulingSection { threads: if open { Some(NonZeroUsize::MIN) } else { written.threads }, ..written.clone() }
}

/// A graph's sessions, and how batches are formed for them.
pub(super) struct Running {
    pub(super) executors: Executors,
    pub(super) policy: Policy,
    pub(super) calibration: Calibration,
    /// What is to be measured once the model serves.
    pub(super) awaits: Option<Awaited>,
    /// How the graph takes samples.
    pub(super) form: GraphForm,
    /// What company they may have.
    pub(super) trial: Trial,
}

/// Sessions that were started as is known or assumed to suit the machine.
pub(super) struct Started {
    pub(super) calibration: Calibration,
    pub(super) executors: Executors,
    pub(super) awaits: Option<Awaited>,
    /// The largest batches that there will be, as samples and positions.
    pub(super) largest: (usize, usize),
}

/// What the choice depends on beside the graph.
pub(super) struct Plan<'a> {
    pub(super) library: &'a Library,
    /// What tells the model's passes from those of others.
    pub(super) passes: &'a str,
    pub(super) written: &'a SchedulingSection,
    /// A short sample, whose tokens the model knows.
    pub(super) probe: Option<&'a TokenizedInput>,
    pub(super) max_tokens: usize,
    /// Where the choice is kept between starts.
    pub(super) file: PathBuf,
    /// How long measuring may take; zero for none.
    pub(super) time: Duration,
    /// What was chosen for the graph that this one replaces.
    pub(super) replaced: Option<Calibration>,
}

impl Plan<'_> {
    /// Starts the graph's sessions. On a processor of which nothing is known, as suits most models, to be measured once the
    /// model serves.
    ///
    /// # Errors
    /// When a session can't start.
    pub(super) fn start(&self, graph: &Graph, binding: &GraphBinding) -> Result<Started, RuntimeError> {
        let mut make = |threads| graph.executor(binding, threads);
        let conditions = self.conditions(graph);
        let fingerprint = self.fingerprint(graph, &conditions);
        let saved = Calibration::load(&self.file, &fingerprint, &conditions).or(self.replaced);
        let measures = saved.is_none() && !self.time.is_zero() && by_hand(self.written, cores()).is_none();
        let (mut calibration, executors) = match conditions.hardware {
            Hardware::Gpu { .. } if measures => {
                let (calibration, executors) = self.measure(&conditions, &fingerprint, &mut make)?;
                (calibration, Some(executors))
            }
            _ => (saved.unwrap_or_else(|| Calibration::assumed(&conditions)), None),
        };
        self.overrule(&conditions, &mut calibration);
        let mut executors = executors.map_or_else(|| calibration.executors(&mut make), Ok)?;
        self.plan_shapes(&mut executors, &calibration, conditions.token)?;
        let on_processor = matches!(conditions.hardware, Hardware::Processor { .. });
        let awaits = (measures && on_processor).then(|| Awaited {
            conditions,
            max_batch: self.written.max_batch,
            file: self.file.clone(),
            fingerprint,
        });
        let (samples, tokens) = calibration.largest(&conditions);
        let samples = self.written.max_batch.map_or(samples, |most| samples.min(most.get()));
        Ok(Started { calibration, executors, awaits, largest: (samples, tokens) })
    }

    /// Has every shape planned that batches come to, where each new one would make requests wait.
    fn plan_shapes(
        &self,
        executors: &mut Executors,
        calibration: &Calibration,
        token: u32,
    ) -> Result<(), RuntimeError> {
        let started = Instant::now();
        let shapes = match plan_shapes(executors, calibration, token) {
            Ok(shapes) => shapes,
            // The warm-up runs into the same error, and tells at which length.
            Err(RuntimeError::Pass { .. } | RuntimeError::Shape { .. } | RuntimeError::NotFinite) => 0,
            Err(error) => return Err(error),
        };
        if shapes > 0 {
            let seconds = started.elapsed().as_secs_f64();
            tracing::info!(file = %self.file.display(), shapes, seconds, "attention planned for every shape");
        }
        Ok(())
    }

    /// Measures on a device, before the model serves.
    fn measure(
        &self,
        conditions: &Conditions,
        fingerprint: &str,
        make: &mut MakeExecutor<'_>,
    ) -> Result<(Calibration, Executors), RuntimeError> {
        match calibrate(conditions, make) {
            Ok(Calibrated { calibration, executors, .. }) => {
                if let Err(error) = calibration.save(&self.file, fingerprint) {
                    tracing::info!(file = %self.file.display(), %error, "calibration not kept: measured again next time");
                }
                Ok((calibration, executors))
            }
            // The warm-up runs into the same error, and tells at which length.
            Err(RuntimeError::Pass { .. } | RuntimeError::Shape { .. }) => {
                let calibration = Calibration::assumed(conditions);
                let executors = calibration.executors(make)?;
                Ok((calibration, executors))
            }
            Err(error) => Err(error),
        }
    }

    fn conditions(&self, graph: &Graph) -> Conditions {
        let hardware = match graph.provider() {
            ProviderKind::Cpu => Hardware::Processor { cores: cores() },
            ProviderKind::Cuda | ProviderKind::Tensorrt => Hardware::Gpu {
                devices: graph.devices(),
                // A second session hides what a pass costs beside computing, which counts for little where weights
                // are large; and it holds them a second time.
                sessions_each: if graph.weight_bytes() <= SMALL_WEIGHTS { TWO } else { NonZeroUsize::MIN },
                most_samples: graph.profile().map(|profile| profile.max.batch),
            },
        };
        Conditions {
            hardware,
            longest: NonZeroUsize::new(self.max_tokens).unwrap_or(NonZeroUsize::MIN),
            max_batch_tokens: self.written.max_batch_tokens.unwrap_or(match hardware {
                Hardware::Processor { cores } => TOKENS_A_CORE.saturating_mul(cores),
                Hardware::Gpu { .. } => MAX_BATCH_TOKENS,
            }),
            batch_invariant: graph.is_batch_invariant(),
            token: self.probe.map_or(0, |probe| probe.ids()[probe.len() / 2]),
            time: self.time,
        }
    }

    /// Everything that the choice depends on.
    fn fingerprint(&self, graph: &Graph, conditions: &Conditions) -> String {
        let Self { passes, library, .. } = self;
        let gpus = match graph.provider() {
            ProviderKind::Cpu => Vec::new(),
            ProviderKind::Cuda | ProviderKind::Tensorrt => graphics().gpus,
        };
        format!("{passes} {} {gpus:?} {conditions:?} {}", graph.provider(), library.build_info())
    }

    /// What the manifest says goes before what was measured.
    fn overrule(&self, conditions: &Conditions, calibration: &mut Calibration) {
        if let Some((sessions, threads)) = by_hand(self.written, cores()) {
            calibration.threads = threads;
            // A GPU has as many as it wants, whatever they compute on beside it.
            calibration.sessions = match conditions.hardware {
                Hardware::Gpu { .. } => self.written.sessions.unwrap_or(calibration.sessions),
                Hardware::Processor { .. } => sessions,
            };
            // Who divides the machine by hand wants no session beside that.
            calibration.single_threads = None;
        }
        if let Some(samples) = self.written.max_batch {
            calibration.batch_samples = calibration.batch_samples.min(samples.get());
        }
    }
}

/// The cores that this process may use.
pub(super) fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
