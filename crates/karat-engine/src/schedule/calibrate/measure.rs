//! Runs probes for a bounded time, in turns, and notices when other programs disturb them.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use karat_rules::domain::{Cut, TokenizedInput};
use karat_runtime::{Cancellation, Executor, RuntimeError, TokenBatch};

use super::{
    super::Executors,
    choose::{Crew, Probe},
};

/// The most runs of a probe: the shortest is the one that was least disturbed.
const RUNS: usize = 5;
/// One probe takes at most this share of all the time, whatever its runs take.
const SHARE: u32 = 12;
/// By how much the processor time of one-threaded passes may differ from the time that went by before other work must
/// have taken the cores, or used this process as well.
const DISTURBED: f64 = 0.1;

/// Measures probes for as long as there is time.
pub(super) struct Stopwatch {
    end: Instant,
    slice: Duration,
    token: u32,
    cancel: Cancellation,
    /// What one-threaded passes should have taken of the processors, and what the process took meanwhile.
    expected: Duration,
    used: Duration,
}

impl Stopwatch {
    /// Starts a stopwatch that measures for `time`, with samples of `token` tokens, unless `cancel` is used before.
    pub(super) fn start(time: Duration, token: u32, cancel: Cancellation) -> Self {
        let (expected, used) = (Duration::ZERO, Duration::ZERO);
        Self { end: Instant::now() + time, slice: time / SHARE, token, cancel, expected, used }
    }

    /// The shortest time of each probe; `None` where there was no time or no session.
    ///
    /// The probes take turns, so that a disturbance doesn't hit one of them alone.
    ///
    /// # Errors
    /// When a pass fails.
    pub(super) fn time(
        &mut self,
        probes: &[Probe],
        executors: &mut Executors,
    ) -> Result<Vec<Option<Duration>>, RuntimeError> {
        let mut shortest: Vec<Option<Duration>> = vec![None; probes.len()];
        let mut spent = vec![Duration::ZERO; probes.len()];
        for run in 0..RUNS {
            for (index, probe) in probes.iter().enumerate() {
                if Instant::now() >= self.end || spent[index] > self.slice {
                    continue;
                }
                let Some(took) = self.run(probe, executors)? else { continue };
                spent[index] += took;
                // The first run of a shape also allocates; it counts only when there is no time for another.
                if run <= 1 || shortest[index].is_none_or(|shortest| took < shortest) {
                    shortest[index] = Some(took);
                }
            }
        }
        Ok(shortest)
    }

    /// Whether the machine had nothing else to do; not when that can't be told.
    pub(super) fn was_quiet(&self) -> bool {
        let ratio = self.used.as_secs_f64() / self.expected.as_secs_f64();
        (ratio - 1.0).abs() <= DISTURBED
    }

    fn run(&mut self, probe: &Probe, executors: &mut Executors) -> Result<Option<Duration>, RuntimeError> {
        let crew: &mut [Box<dyn Executor>] = match probe.crew {
            Crew::Parallel => &mut executors.parallel,
            Crew::One => executors.parallel.get_mut(..1).unwrap_or_default(),
            Crew::Single => executors.single.as_mut_slice(),
        };
        let Some(batch) = batch(probe, self.token).filter(|_| !crew.is_empty()) else { return Ok(None) };
        let before = processor_time();
        let times = side_by_side(crew, &batch, &self.cancel)?;
        if let (Crew::Parallel | Crew::One, Some(before), Some(after)) = (probe.crew, before, processor_time()) {
            self.expected += times.iter().sum::<Duration>();
            self.used += after.saturating_sub(before);
        }
        Ok(times.into_iter().max())
    }
}

pub(super) fn batch(probe: &Probe, token: u32) -> Option<TokenBatch> {
    let ids = vec![token; probe.tokens];
    let segments = vec![0; probe.tokens];
    let input = Arc::new(TokenizedInput::new(ids, segments, 0..probe.tokens, Cut::default())?);
    TokenBatch::new(vec![input; probe.samples])
}

/// Runs the batch on every executor at once; gives each one's time from the common start.
pub(super) fn side_by_side(
    executors: &mut [Box<dyn Executor>],
    batch: &TokenBatch,
    cancel: &Cancellation,
) -> Result<Vec<Duration>, RuntimeError> {
    let started = Instant::now();
    let run = |executor: &mut Box<dyn Executor>, cancel: &Cancellation| {
        executor.run(batch, cancel)?;
        Ok(started.elapsed())
    };
    if let [executor] = executors {
        return Ok(vec![run(executor, cancel)?]);
    }
    // Each pass is told of its own.
    let each: Vec<Cancellation> = executors.iter().map(|_| Cancellation::new()).collect();
    let _registration = cancel.on_cancel({
        let each = each.clone();
        move || each.iter().for_each(Cancellation::cancel)
    });
    thread::scope(|scope| {
        let threads: Vec<_> = executors
            .iter_mut()
            .zip(&each)
            .map(|(executor, cancel)| scope.spawn(move || run(executor, cancel)))
            .collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect()
    })
}

/// The processor time of this process so far; `None` where the system doesn't tell.
fn processor_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(expected: u64, used: u64) -> Stopwatch {
        let (expected, used) = (Duration::from_millis(expected), Duration::from_millis(used));
        Stopwatch { expected, used, ..Stopwatch::start(Duration::ZERO, 1, Cancellation::new()) }
    }

    #[test]
    fn a_machine_is_quiet_when_passes_had_their_cores_for_themselves() {
        assert!(watched(1000, 990).was_quiet());
        assert!(!watched(1000, 700).was_quiet(), "other programs took the cores");
        assert!(!watched(1000, 1500).was_quiet(), "this process did something else as well");
        assert!(!watched(0, 0).was_quiet(), "nothing is known");
    }
}
