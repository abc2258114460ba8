//! Measures which [`Policy`] and which sessions suit a model on this machine.
//!
//! What is fastest depends on the model's size, the number of cores, their caches, and on a GPU on everything else.
//! So a model is run on a few shapes when it is loaded, for a bounded time, and the few numbers are chosen from what
//! that took. [`Calibration::save`] keeps them for the next start.

mod gpu;

use std::{
    fs, io,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Executors, Policy};
use crate::{
    domain::{Cut, TokenizedInput},
    runtime::{Cancellation, Executor, RuntimeError, TokenBatch},
};

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
    /// How many threads the session for lone requests computes on; without it there is none.
    pub lone_threads: Option<NonZeroUsize>,
    /// How many waiting requests go to that session, one after another.
    pub lone_jobs: usize,
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
        let (sessions, lone_threads) = match conditions.hardware {
            Hardware::Processor { cores } => (cores, Some(cores).filter(|cores| cores.get() > 1)),
            Hardware::Gpu { devices, sessions_each, .. } => return gpu::assumed(conditions, devices, sessions_each),
        };
        Self {
            sessions,
            threads: NonZeroUsize::MIN,
            lone_threads,
            lone_jobs: policy.lone_jobs,
            batch_tokens: policy.budget.min(conditions.max_batch_tokens.get()),
            batch_samples: if conditions.batch_invariant { policy.max_batch } else { 1 },
            overhead_tokens: policy.overhead,
            padding_percent: policy.padding_percent,
            tokens_per_second: None,
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
            lone_jobs: self.lone_jobs,
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
            crowd: (0..self.sessions.get()).map(|_| make(self.threads)).collect::<Result<_, _>>()?,
            lone: self.lone_threads.map(make).transpose()?,
        })
    }

    /// Reads what an earlier start saved, if it was saved under the same fingerprint.
    #[must_use]
    pub fn load(path: &Path, fingerprint: &str) -> Option<Self> {
        let saved: Saved = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (saved.fingerprint == fingerprint).then_some(saved.calibration)
    }

    /// Saves the choice for the next start. `fingerprint` names everything that it depends on: the model's version,
    /// the provider, the library and the machine.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save(&self, path: &Path, fingerprint: &str) -> io::Result<()> {
        let saved = Saved { fingerprint: fingerprint.to_owned(), calibration: *self };
        // Renamed into place, so that a server that starts meanwhile reads either nothing or all of it.
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(&saved)?)?;
        fs::rename(&partial, path)
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    fingerprint: String,
    calibration: Calibration,
}

/// Measures, chooses, and gives the choice together with the executors that it was measured on.
///
/// # Errors
/// When a session can't start or a pass fails.
pub fn calibrate(
    conditions: &Conditions,
    make: &mut MakeExecutor<'_>,
) -> Result<(Calibration, Executors), RuntimeError> {
    if let Hardware::Gpu { .. } = conditions.hardware {
        return gpu::calibrate(conditions, make);
    }
    let mut executors = Calibration::assumed(conditions).executors(make)?;
    let stopwatch = Stopwatch { end: Instant::now() + conditions.time, slice: conditions.time / 12 };
    let mut failure = None;
    let calibration = choose(conditions, &mut |probe| {
        stopwatch.time(probe, conditions.token, &mut executors).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            None
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    if calibration.lone_threads.is_none() {
        let lone = executors.lone.take();
        // One session on all cores was faster than one on each.
        if let Some(lone) = lone.filter(|_| calibration.sessions.get() < executors.crowd.len()) {
            executors.crowd = vec![lone];
        }
    }
    Ok((calibration, executors))
}

/// One thing to measure: how long a batch takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    crew: Crew,
    samples: usize,
    tokens: usize,
}

/// Who runs the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crew {
    /// Every session of the crowd, at the same time, each its own copy of the batch.
    Crowd,
    /// One session of the crowd, while the others rest.
    One,
    /// The session on all cores.
    Lone,
}

/// A length at which a pass's own cost shows.
const SHORT: usize = 32;
/// A length at which groups are formed on any hardware.
const MIDDLE: usize = 64;
/// About the length of a usual sample.
const USUAL: usize = 128;
/// By how much another choice must be better than the usual one, lest noise makes it.
const CLEARLY: f64 = 1.03;
/// By how much the session on all cores must be slower than one thread to be left out. More than clearly: beside other
/// programs it loses most, and on a machine that is only busy now it would be missed later.
const FAR: f64 = 1.25;

/// Chooses by what `measure` says; it says `None` when there is no time left.
fn choose(conditions: &Conditions, measure: &mut dyn FnMut(Probe) -> Option<Duration>) -> Calibration {
    let mut chosen = Calibration::assumed(conditions);
    let longest = conditions.longest.get();
    let mut seconds = |crew, samples, tokens: usize| {
        measure(Probe { crew, samples, tokens: tokens.min(longest) }).map(|time| time.as_secs_f64())
    };

    if let Some(crowd) = seconds(Crew::Crowd, 1, USUAL) {
        let rate = |sessions: usize, seconds: f64| float(sessions * USUAL.min(longest)) / seconds;
        let crowd_rate = rate(chosen.sessions.get(), crowd);
        chosen.tokens_per_second = Some(crowd_rate);
        if let Some(threads) = chosen.lone_threads
            && let (Some(one), Some(lone)) = (seconds(Crew::One, 1, USUAL), seconds(Crew::Lone, 1, USUAL))
        {
            let lone_rate = rate(1, lone);
            if lone_rate > crowd_rate * CLEARLY {
                chosen = Calibration {
                    sessions: NonZeroUsize::MIN,
                    threads,
                    lone_threads: None,
                    tokens_per_second: Some(lone_rate),
                    ..chosen
                };
            } else if lone > one * FAR {
                chosen.lone_threads = None;
            } else {
                // One after another they take `lone` each, side by side `one` all together.
                chosen.lone_jobs = whole(one / lone).max(1);
            }
        }
    }
    if !conditions.batch_invariant {
        return chosen;
    }
    // Measured as it will be used: all sessions at once, for they share caches and memory.
    let crew = if chosen.sessions == Calibration::assumed(conditions).sessions { Crew::Crowd } else { Crew::Lone };
    if let (Some(single), Some(group)) = (seconds(crew, 1, SHORT), seconds(crew, 8, SHORT)) {
        let short = SHORT.min(longest);
        let per_token = (group - single) / float(7 * short);
        if per_token > 0.0 {
            chosen.overhead_tokens = whole((single / per_token - float(short)).max(0.0));
        }
    }
    if let Some(budget) = choose_budget(conditions, |samples, tokens| seconds(crew, samples, tokens)) {
        chosen.batch_tokens = budget;
        chosen.batch_samples = chosen.batch_samples.max(budget / SHORT);
    }
    chosen
}

/// The budget that computes the most tokens a second; the usual one unless another is clearly better.
fn choose_budget(conditions: &Conditions, mut seconds: impl FnMut(usize, usize) -> Option<f64>) -> Option<usize> {
    let length = MIDDLE.min(conditions.longest.get());
    let usual = Policy::default().budget.min(conditions.max_batch_tokens.get());
    let mut best: Option<(usize, f64)> = None;
    let mut usual_rate = None;
    let mut samples = 1;
    loop {
        let budget = samples * length;
        // Larger ones are tried for as long as the last two doublings brought something.
        let promising = budget <= usual || best.is_some_and(|(best, _)| budget <= best.saturating_mul(4));
        if budget > conditions.max_batch_tokens.get() || !promising {
            break;
        }
        let Some(seconds) = seconds(samples, length) else { break };
        let rate = float(budget) / seconds;
        if best.is_none_or(|(_, best)| rate > best * CLEARLY) {
            best = Some((budget, rate));
        }
        if budget <= usual {
            usual_rate = Some(rate);
        }
        samples *= 2;
    }
    let (budget, rate) = best?;
    (rate > usual_rate? * CLEARLY).then_some(budget)
}

/// Runs probes for as long as there is time.
struct Stopwatch {
    end: Instant,
    /// How long one probe may be repeated.
    slice: Duration,
}

/// The shortest of a few runs is the one that was least disturbed.
const RUNS: usize = 4;

impl Stopwatch {
    fn time(&self, probe: Probe, token: u32, executors: &mut Executors) -> Result<Option<Duration>, RuntimeError> {
        let started = Instant::now();
        let crew: &mut [Box<dyn Executor>] = match probe.crew {
            Crew::Crowd => &mut executors.crowd,
            Crew::One => executors.crowd.get_mut(..1).unwrap_or_default(),
            Crew::Lone => executors.lone.as_mut_slice(),
        };
        let Some(batch) = batch(probe, token).filter(|_| !crew.is_empty() && started < self.end) else {
            return Ok(None);
        };
        let mut shortest = None;
        for run in 0..RUNS {
            let took = side_by_side(crew, &batch)?;
            // The first run of a shape also allocates; it counts only when there is no time for another.
            if run <= 1 || shortest.is_none_or(|shortest| took < shortest) {
                shortest = Some(took);
            }
            if started.elapsed() + took > self.slice {
                break;
            }
        }
        Ok(shortest)
    }
}

fn batch(probe: Probe, token: u32) -> Option<TokenBatch> {
    let ids = vec![token; probe.tokens];
    let segments = vec![0; probe.tokens];
    let input = Arc::new(TokenizedInput::new(ids, segments, 0..probe.tokens, Cut::default())?);
    TokenBatch::new(vec![input; probe.samples])
}

/// Runs the batch on every executor at once; gives the time until the last is done.
fn side_by_side(executors: &mut [Box<dyn Executor>], batch: &TokenBatch) -> Result<Duration, RuntimeError> {
    let started = Instant::now();
    let run = |executor: &mut Box<dyn Executor>| executor.run(batch, &Cancellation::new()).map(drop);
    if let [executor] = executors {
        run(executor)?;
        return Ok(started.elapsed());
    }
    thread::scope(|scope| {
        let threads: Vec<_> = executors.iter_mut().map(|executor| scope.spawn(|| run(executor))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(started.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a conversion that saturates is wanted")]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeControl;

    fn positive(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    fn conditions(cores: usize) -> Conditions {
        Conditions {
            hardware: Hardware::Processor { cores: positive(cores) },
            longest: positive(512),
            max_batch_tokens: positive(16_384),
            batch_invariant: true,
            token: 1,
            time: Duration::from_secs(2),
        }
    }

    /// A machine on which a pass costs `overhead` tokens more than it has, up to a cache of `cache` tokens beyond
    /// which every token costs twice, and all cores together are `speedup` times as fast as one.
    fn machine(overhead: usize, cache: usize, speedup: f64) -> impl FnMut(Probe) -> Option<Duration> {
        move |probe| {
            let tokens = probe.samples * probe.tokens;
            let cost = float(overhead + tokens + tokens.saturating_sub(cache));
            let speed = if probe.crew == Crew::Lone { speedup } else { 1.0 };
            Some(Duration::from_secs_f64(cost / 1000.0 / speed))
        }
    }

    #[test]
    fn small_groups_suit_a_small_cache() {
        let chosen = choose(&conditions(2), &mut machine(20, 512, 1.8));
        assert_eq!((chosen.sessions.get(), chosen.threads.get()), (2, 1));
        assert_eq!((chosen.lone_threads, chosen.lone_jobs), (Some(positive(2)), 1));
        assert_eq!(chosen.batch_tokens, 512);
        assert!((19..=21).contains(&chosen.overhead_tokens), "{chosen:?}");
    }

    #[test]
    fn a_smaller_cache_gets_smaller_groups() {
        assert_eq!(choose(&conditions(2), &mut machine(20, 128, 1.8)).batch_tokens, 128);
    }

    #[test]
    fn many_cores_take_several_jobs_one_after_another() {
        let chosen = choose(&conditions(16), &mut machine(20, 512, 6.5));
        assert_eq!((chosen.sessions.get(), chosen.lone_jobs), (16, 6));
    }

    #[test]
    fn one_session_on_all_cores_is_taken_when_it_is_faster() {
        let chosen = choose(&conditions(4), &mut machine(20, 512, 5.0));
        assert_eq!((chosen.sessions.get(), chosen.threads.get(), chosen.lone_threads), (1, 4, None));
    }

    #[test]
    fn a_session_on_all_cores_that_is_far_slower_is_left_out() {
        let chosen = choose(&conditions(2), &mut machine(20, 512, 0.7));
        assert_eq!((chosen.sessions.get(), chosen.lone_threads), (2, None));
    }

    #[test]
    fn a_graph_that_depends_on_the_batch_runs_alone() {
        let dependent = Conditions { batch_invariant: false, ..conditions(2) };
        assert_eq!(choose(&dependent, &mut machine(20, 512, 1.8)).policy().max_batch, 1);
    }

    #[test]
    fn without_time_the_usual_is_assumed() {
        assert_eq!(choose(&conditions(2), &mut |_| None), Calibration::assumed(&conditions(2)));
    }

    #[test]
    fn the_executors_are_those_that_were_chosen() {
        let control = FakeControl::new();
        let mut made = Vec::new();
        let (chosen, executors) = calibrate(&conditions(3), &mut |threads| {
            made.push(threads.get());
            Ok(control.executor())
        })
        .unwrap();
        assert_eq!(made, [1, 1, 1, 3]);
        assert_eq!(executors.crowd.len(), chosen.sessions.get());
        assert_eq!(executors.lone.is_some(), chosen.lone_threads.is_some());
        assert!(control.batches().iter().flatten().all(|ids| ids.iter().all(|&id| id == 1)));
    }

    #[test]
    fn a_failing_pass_fails_the_load() {
        let control = FakeControl::new();
        control.fail_on(1);
        assert!(calibrate(&conditions(2), &mut |_| Ok(control.executor())).is_err());
    }

    #[test]
    fn what_was_saved_is_read_back_only_for_the_same_machine_and_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let chosen = choose(&conditions(2), &mut machine(20, 512, 1.8));
        assert_eq!(Calibration::load(&path, "here"), None);
        chosen.save(&path, "here").unwrap();
        assert_eq!(Calibration::load(&path, "here"), Some(chosen));
        assert_eq!(Calibration::load(&path, "elsewhere"), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(Calibration::load(&path, "here"), None);
    }
}
