//! Chooses how a graph uses the machine: as its manifest says, as an earlier start measured, or by measuring now.

use std::{num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use karat_rules::domain::TokenizedInput;
use karat_runtime::{
    BatchLimits, GraphBinding, ProviderKind, RuntimeError,
    libraries::graphics,
    ort::{Graph, Library, Sessions},
};

use super::decoder::is_alone;
use crate::{
    manifest::{GraphDefinition, SchedulingSection},
    repository::GraphForm,
    schedule::{
        Executors, Policy,
        calibrate::{Calibrated, Calibration, Conditions, Hardware, calibrate},
        trial::Trial,
    },
};

/// The most positions of a batch unless the manifest says otherwise: enough to fill a GPU, little enough to fit.
const MAX_BATCH_TOKENS: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 16) - 1);

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

/// A graph's sessions, and how batches are formed for them.
pub(super) struct Running {
    pub(super) executors: Executors,
    pub(super) policy: Policy,
    pub(super) calibration: Calibration,
    /// How the graph takes samples.
    pub(super) form: GraphForm,
    /// What company they may have.
    pub(super) trial: Trial,
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
    /// Starts the graph's sessions.
    ///
    /// # Errors
    /// When a session can't start.
    pub(super) fn start(
        &self,
        graph: &Graph,
        binding: &GraphBinding,
    ) -> Result<(Calibration, Executors), RuntimeError> {
        let mut make = |threads| graph.executor(binding, threads);
        let conditions = self.conditions(graph);
        let fingerprint = self.fingerprint(graph, &conditions);
        let saved = Calibration::load(&self.file, &fingerprint, &conditions).or(self.replaced);
        let known = match saved {
            Some(calibration) => Some(calibration),
            None if self.time.is_zero() || by_hand(self.written, cores()).is_some() => {
                Some(Calibration::assumed(&conditions))
            }
            None => None,
        };
        if let Some(mut calibration) = known {
            self.overrule(&conditions, &mut calibration);
            let executors = calibration.executors(&mut make)?;
            return Ok((calibration, executors));
        }
        match calibrate(&conditions, &mut make) {
            Ok(Calibrated { mut calibration, executors, quiet }) => {
                if !quiet {
                    tracing::info!(file = %self.file.display(), "the machine was busy: calibration not kept, measured again next time");
                } else if let Err(error) = calibration.save(&self.file, &fingerprint) {
                    tracing::info!(file = %self.file.display(), %error, "calibration not kept: measured again next time");
                }
                self.overrule(&conditions, &mut calibration);
                Ok((calibration, executors))
            }
            // The warm-up runs into the same error, and tells at which length.
            Err(RuntimeError::Pass { .. } | RuntimeError::Shape { .. }) => {
                let calibration = Calibration::assumed(&conditions);
                let executors = calibration.executors(&mut make)?;
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
            max_batch_tokens: self.written.max_batch_tokens.unwrap_or(MAX_BATCH_TOKENS),
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
