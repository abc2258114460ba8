//! Measures which [`Policy`] and which sessions suit a model on this machine.
//!
//! What is fastest depends on the model's size, the number of cores, their caches, and on a GPU on everything else.
//! So a model is run on a few shapes, for a bounded time, and the few numbers are chosen from what that took. On a GPU
//! that is done when it is loaded, and on a processor once it serves and has nothing to do: until then it goes on as most
//! models do. [`Calibration::save`] keeps the choice for the next start.

mod choose;
mod gpu;
mod measure;

use std::{io, num::NonZeroUsize, path::Path, time::Duration};

use karat_runtime::{Cancellation, Executor, RuntimeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Executors, Policy, recall, remember};
use choose::{CLEARLY, SHORT, USUAL, choose, float, whole};
use measure::{Stopwatch, batch, side_by_side};

pub(crate) use gpu::plan_shapes;

/// More samples than any batch of any graph that is worth its memory.
const MOST_SAMPLES: usize = 1 << 12;
/// More jobs than any session on all cores is given in a row.
const MOST_JOBS: usize = 1 << 12;

/// What is known before anything is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Where the model runs.
    pub hardware: Hardware,
    /// The longest sample that the model takes, in tokens.
    pub longest: NonZeroUsize,
    /// The most positions of a batch of several samples, as the memory allows.
    pub max_batch_tokens: NonZeroUsize,
    /// Whether a sample's score is the same whatever it is batched with; if not, every sample runs alone.
    pub batch_invariant: bool,
    /// A token id to measure with; any that the model knows.
    pub token: u32,
    /// How long measuring may take, sessions not counted.
    pub time: Duration,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// On so many processor cores.
    Processor {
        /// The cores that this model may use.
        cores: NonZeroUsize,
    },
    /// On GPUs.
    Gpu {
        /// How many.
        devices: NonZeroUsize,
        /// How many sessions may share each.
        sessions_each: NonZeroUsize,
        /// The most samples that a batch may have, if there is a bound.
        most_samples: Option<NonZeroUsize>,
    },
}

/// The choice for one model on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// How many sessions run side by side while many requests wait.
    pub sessions: NonZeroUsize,
    /// How many threads each of them computes on.
    pub threads: NonZeroUsize,
    /// How many threads the session for single requests computes on; without it there is none.
    #[serde(rename = "lone_threads")]
    pub single_threads: Option<NonZeroUsize>,
    /// How many waiting requests go to that session, one after another.
    #[serde(rename = "lone_jobs")]
    pub single_jobs: usize,
    /// The most positions, padding included, of a batch of several samples.
    pub batch_tokens: usize,
    /// The most samples of a batch.
    pub batch_samples: usize,
    /// What a forward pass costs beyond its tokens, measured in tokens.
    pub overhead_tokens: usize,
    /// The most padding of a batch while much waits, in percent of its positions.
    #[serde(default = "Calibration::any_padding")]
    pub padding_percent: usize,
    /// How many tokens a second all sessions compute together; unknown when there was no time to measure.
    pub tokens_per_second: Option<f64>,
}

/// Makes an executor that computes on so many threads.
pub type MakeExecutor<'a> = dyn FnMut(NonZeroUsize) -> Result<Box<dyn Executor>, RuntimeError> + 'a;

impl Calibration {
    /// What suits most models, for when nothing can be measured.
    #[must_use]
    pub fn assumed(conditions: &Conditions) -> Self {
        let policy = Policy::default();
        let (sessions, single_threads) = match conditions.hardware {
            Hardware::Processor { cores } => (cores, Some(cores).filter(|cores| cores.get() > 1)),
            Hardware::Gpu { devices, sessions_each, .. } => return gpu::assumed(conditions, devices, sessions_each),
        };
        Self {
            sessions,
            threads: NonZeroUsize::MIN,
            single_threads,
            single_jobs: policy.single_jobs,
            batch_tokens: policy.budget.min(conditions.max_batch_tokens.get()),
            batch_samples: if conditions.batch_invariant { policy.max_batch } else { 1 },
            overhead_tokens: policy.overhead,
            padding_percent: policy.padding_percent,
            tokens_per_second: None,
        }
    }

    /// The largest batches that any choice under these conditions has, as samples and positions.
    #[must_use]
    pub fn largest(&self, conditions: &Conditions) -> (usize, usize) {
        match conditions.hardware {
            Hardware::Processor { .. } if conditions.batch_invariant => {
                let positions = conditions.max_batch_tokens.get();
                ((positions / SHORT).max(Policy::default().max_batch), positions)
            }
            // Chosen already, or alone.
            Hardware::Processor { .. } | Hardware::Gpu { .. } => (self.batch_samples, self.batch_tokens),
        }
    }

    /// What holds for what was saved before there was a bound.
    fn any_padding() -> usize {
        Policy::default().padding_percent
    }

    /// The policy that follows.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            budget: self.batch_tokens,
            max_batch: self.batch_samples,
            overhead: self.overhead_tokens,
            padding_percent: self.padding_percent,
            single_jobs: self.single_jobs,
            // A window that a batch can be filled from several times over.
            window: Policy::default().window.max(self.batch_samples.saturating_mul(2)),
            ..Policy::default()
        }
    }

    /// Makes the executors that were chosen.
    ///
    /// # Errors
    /// When a session can't start.
    pub fn executors(&self, make: &mut MakeExecutor<'_>) -> Result<Executors, RuntimeError> {
        Ok(Executors {
            parallel: (0..self.sessions.get()).map(|_| make(self.threads)).collect::<Result<_, _>>()?,
            single: self.single_threads.map(make).transpose()?,
        })
    }

    /// Reads what an earlier start saved, if it was saved under the same fingerprint and can have been measured under these
    /// conditions.
    #[must_use]
    pub fn load(path: &Path, fingerprint: &str, conditions: &Conditions) -> Option<Self> {
        recall(path, fingerprint, |calibration: &Self| calibration.check(conditions))
    }

    /// Refuses what no measuring under these conditions comes to.
    fn check(&self, conditions: &Conditions) -> Result<(), String> {
        let (most_sessions, most_threads) = match conditions.hardware {
            Hardware::Processor { cores } => (cores.get(), cores.get()),
            Hardware::Gpu { devices, sessions_each, .. } => (devices.get().saturating_mul(sessions_each.get()), 1),
        };
        let most_samples =
            if conditions.batch_invariant { conditions.max_batch_tokens.get().max(MOST_SAMPLES) } else { 1 };
        let single = self.single_threads.map_or(1, NonZeroUsize::get);
        let bounds = [
            ("sessions", self.sessions.get(), most_sessions),
            ("threads", self.threads.get(), most_threads),
            ("lone_threads", single, most_threads),
            ("lone_jobs", self.single_jobs, MOST_JOBS),
            ("batch_tokens", self.batch_tokens, conditions.max_batch_tokens.get()),
            ("batch_samples", self.batch_samples, most_samples),
        ];
        for (key, found, most) in bounds {
            if found == 0 || found > most {
                return Err(format!("{key}: {found}, where 1 to {most} can be measured"));
            }
        }
        if self.padding_percent > 100 {
            return Err(format!("padding_percent: {}, of 100", self.padding_percent));
        }
        match self.tokens_per_second {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(format!("tokens_per_second: {rate}")),
            _ => Ok(()),
        }
    }

    /// Saves the choice for the next start. `fingerprint` names everything that it depends on: the model's version,
    /// the provider, the library and the machine.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save(&self, path: &Path, fingerprint: &str) -> io::Result<()> {
        remember(path, fingerprint, self)
    }
}

/// What measuring came to.
pub struct Calibrated {
    /// The choice.
    pub calibration: Calibration,
    /// The sessions that it was measured on, and that it chose.
    pub executors: Executors,
    /// Whether the machine had nothing else to do, so that the choice is worth keeping.
    pub quiet: bool,
}

/// Measures and chooses. On processor cores that other programs keep busy only the speed is taken over: what is
/// faster than what can't be told there, and the usual choice suits most models.
///
/// # Errors
/// When a session can't start or a pass fails.
pub fn calibrate(conditions: &Conditions, make: &mut MakeExecutor<'_>) -> Result<Calibrated, RuntimeError> {
    if let Hardware::Gpu { .. } = conditions.hardware {
        let (calibration, executors) = gpu::calibrate(conditions, make)?;
        return Ok(Calibrated { calibration, executors, quiet: true });
    }
    let assumed = Calibration::assumed(conditions);
    let mut executors = assumed.executors(make)?;
    let (calibration, quiet) = try_out(conditions, &mut executors, &Cancellation::new())?;
    Ok(settle(calibration, assumed, executors, quiet))
}

/// Measures and chooses on processor cores, with the sessions of [`Calibration::assumed`]; tells whether the machine had
/// nothing else to do, without which the choice is worth nothing.
///
/// # Errors
/// When a pass fails, or `cancel` was used.
pub(crate) fn try_out(
    conditions: &Conditions,
    executors: &mut Executors,
    cancel: &Cancellation,
) -> Result<(Calibration, bool), RuntimeError> {
    let mut stopwatch = Stopwatch::start(conditions.time, conditions.token, cancel.clone());
    let mut failure = None;
    let calibration = choose(conditions, &mut |probes| {
        stopwatch.time(probes, executors).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            vec![None; probes.len()]
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok((calibration, stopwatch.was_quiet())),
    }
}

/// What is made of what was measured; of a machine that was not `quiet` only the speed.
fn settle(measured: Calibration, assumed: Calibration, mut executors: Executors, quiet: bool) -> Calibrated {
    let calibration =
        if quiet { measured } else { Calibration { tokens_per_second: measured.tokens_per_second, ..assumed } };
    if calibration.single_threads.is_none() {
        let single = executors.single.take();
        // One session on all cores was faster than one on each.
        if let Some(single) = single.filter(|_| calibration.sessions.get() < executors.parallel.len()) {
            executors.parallel = vec![single];
        }
    }
    Calibrated { calibration, executors, quiet }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use karat_runtime::fake::FakeControl;

    pub(super) fn positive(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    pub(super) fn conditions(cores: usize) -> Conditions {
        Conditions {
            hardware: Hardware::Processor { cores: positive(cores) },
            longest: positive(512),
            max_batch_tokens: positive(16_384),
            batch_invariant: true,
            token: 1,
            time: Duration::from_secs(2),
        }
    }

    #[test]
    fn the_executors_are_those_that_were_chosen() {
        let control = FakeControl::new();
        let mut made = Vec::new();
        let Calibrated { calibration: chosen, executors, .. } = calibrate(&conditions(3), &mut |threads| {
            made.push(threads.get());
            Ok(control.executor())
        })
        .unwrap();
        assert_eq!(made, [1, 1, 1, 3]);
        assert_eq!(executors.parallel.len(), chosen.sessions.get());
        assert_eq!(executors.single.is_some(), chosen.single_threads.is_some());
        assert!(control.batches().iter().flatten().all(|ids| ids.iter().all(|&id| id == 1)));
    }

    #[test]
    fn on_a_busy_machine_only_the_speed_is_taken_over() {
        let control = FakeControl::new();
        let assumed = Calibration::assumed(&conditions(3));
        let measured = Calibration {
            sessions: positive(1),
            threads: positive(3),
            single_threads: None,
            batch_tokens: 7,
            tokens_per_second: Some(1000.0),
            ..assumed
        };
        for quiet in [false, true] {
            let executors = assumed.executors(&mut |_| Ok(control.executor())).unwrap();
            let settled = settle(measured, assumed, executors, quiet);
            let usual = Calibration { tokens_per_second: Some(1000.0), ..assumed };
            assert_eq!(settled.calibration, if quiet { measured } else { usual });
            assert_eq!(settled.executors.parallel.len(), if quiet { 1 } else { 3 });
            assert_eq!((settled.executors.single.is_some(), settled.quiet), (!quiet, quiet));
        }
    }

    #[test]
    fn a_failing_pass_fails_the_load() {
        let control = FakeControl::new();
        control.fail_on(1);
        assert!(calibrate(&conditions(2), &mut |_| Ok(control.executor())).is_err());
    }

    #[test]
    fn what_nobody_measured_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let conditions = conditions(2);
        let chosen = Calibration { overhead_tokens: 20, ..Calibration::assumed(&conditions) };
        chosen.save(&path, "here").unwrap();
        assert_eq!(Calibration::load(&path, "here", &conditions), Some(chosen));
        assert_eq!(Calibration::load(&path, "elsewhere", &conditions), None);
        let written = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"sessions\": 2", "\"sessions\": 100000"),
            ("\"sessions\": 2", "\"sessions\": 0"),
            ("\"threads\": 1", "\"threads\": -1"),
            ("\"batch_tokens\": 512", "\"batch_tokens\": 0"),
            ("\"batch_tokens\": 512", "\"batch_tokens\": 100000000"),
            ("\"batch_samples\": 32", "\"batch_samples\": 0"),
            ("\"lone_jobs\": 1", "\"lone_jobs\": 0"),
            ("\"padding_percent\": 100", "\"padding_percent\": 101"),
            ("\"tokens_per_second\": null", "\"tokens_per_second\": -3.0"),
        ] {
            assert!(written.contains(from), "{from} is not in {written}");
            fs::write(&path, written.replace(from, to)).unwrap();
            assert_eq!(Calibration::load(&path, "here", &conditions), None, "{to}");
        }
        // What a graph must not be given, however it is written.
        fs::write(&path, written).unwrap();
        let dependent = Conditions { batch_invariant: false, ..conditions };
        assert_eq!(Calibration::load(&path, "here", &dependent), None);
    }
}
