//! Measures which policy suits a model on GPUs.
//!
//! A GPU computes thousands of positions in the time that it takes to start a pass, so batches are large, and padding
//! is what costs most: it is bounded instead of being weighed job by job. A second session on a GPU lets one pass's
//! inputs be written and its results be read while the other computes; it is kept when that makes a difference.

use std::{num::NonZeroUsize, time::Instant};

use karat_runtime::{Cancellation, Executor, RuntimeError};

use super::{
    CLEARLY, Calibration, Conditions, Executors, Hardware, MakeExecutor, SHORT, USUAL, batch,
    choose::{Crew, Probe},
    float, side_by_side, whole,
};

/// The positions of a batch where nothing was measured.
const BUDGET: usize = 16_384;
/// What a pass costs beyond its tokens where nothing was measured, in tokens.
const OVERHEAD: usize = 1024;
/// The most padding of a batch while much waits, in percent.
const PADDING_PERCENT: usize = 8;
/// The smallest group that is tried for a budget.
const FEWEST: usize = 8;
/// How often a size is run at most; the first run also allocates.
const RUNS: usize = 4;

/// What suits most models.
pub(super) fn assumed(conditions: &Conditions, devices: NonZeroUsize, sessions_each: NonZeroUsize) -> Calibration {
    let budget = BUDGET.min(conditions.max_batch_tokens.get());
    Calibration {
        sessions: devices.saturating_mul(sessions_each),
        threads: NonZeroUsize::MIN,
        single_threads: None,
        single_jobs: 1,
        batch_tokens: budget,
        batch_samples: most_samples(conditions, budget),
        overhead_tokens: OVERHEAD,
        padding_percent: PADDING_PERCENT,
        tokens_per_second: None,
    }
}

/// Measures, chooses, and gives the choice together with the executors that it was measured on.
pub(super) fn calibrate(
    conditions: &Conditions,
    make: &mut MakeExecutor<'_>,
) -> Result<(Calibration, Executors), RuntimeError> {
    let mut executors = Calibration::assumed(conditions).executors(make)?;
    let end = Instant::now() + conditions.time;
    let mut failure = None;
    let calibration = choose(conditions, &mut |sessions, samples, tokens| {
        let crew = executors.parallel.get_mut(..sessions.get())?;
        time(crew, samples, tokens, conditions, end).unwrap_or_else(|error| {
            // What doesn't fit is no choice; everything else fails the load.
            if !matches!(error, RuntimeError::OutOfMemory { .. }) {
                failure.get_or_insert(error);
            }
            None
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    // Sessions take turns among the GPUs, so the first ones are one on each.
    executors.parallel.truncate(calibration.sessions.get());
    Ok((calibration, executors))
}

/// How long a batch takes on each of these sessions at once; `None` when there is no time left.
fn time(
    crew: &mut [Box<dyn Executor>],
    samples: usize,
    tokens: usize,
    conditions: &Conditions,
    end: Instant,
) -> Result<Option<f64>, RuntimeError> {
    let mut shortest: Option<f64> = None;
    for run in 0..RUNS {
        // Traffic hardly ever brings one shape twice: a GPU that plans each anew must show it. Where passes are rounded up,
        // they come to the same.
        let probe = Probe { crew: Crew::Parallel, samples, tokens: tokens.saturating_sub(run).max(1) };
        let Some(batch) = batch(&probe, conditions.token).filter(|_| Instant::now() < end) else { break };
        let Some(took) = side_by_side(crew, &batch, &Cancellation::new())?.into_iter().max() else { return Ok(None) };
        let took = took.as_secs_f64();
        if run <= 1 || shortest.is_none_or(|shortest| took < shortest) {
            shortest = Some(took);
        }
    }
    Ok(shortest)
}

/// Runs every shape once that batches can be rounded up to, on all sessions at once, so that no request waits for one to be
/// planned; gives how many there were. What doesn't fit into memory is left out, with everything larger.
///
/// # Errors
/// When a pass fails.
pub(crate) fn plan_shapes(
    executors: &mut Executors,
    calibration: &Calibration,
    token: u32,
) -> Result<usize, RuntimeError> {
    let Some(shapes) = executors.parallel.first().and_then(Executor::shapes) else { return Ok(0) };
    let all = shapes.all(calibration.batch_samples, calibration.batch_tokens);
    for (number, [samples, tokens]) in all.iter().copied().enumerate() {
        let Some(batch) = batch(&Probe { crew: Crew::Parallel, samples, tokens }, token) else { continue };
        match side_by_side(&mut executors.parallel, &batch, &Cancellation::new()) {
            Ok(_) => {}
            Err(RuntimeError::OutOfMemory { .. }) => return Ok(number),
            Err(error) => return Err(error),
        }
    }
    Ok(all.len())
}

/// The seconds that a batch of so many samples of so many tokens takes on each of so many sessions at once.
type Measure<'a> = dyn FnMut(NonZeroUsize, usize, usize) -> Option<f64> + 'a;

fn choose(conditions: &Conditions, measure: &mut Measure<'_>) -> Calibration {
    let mut chosen = Calibration::assumed(conditions);
    let Hardware::Gpu { devices, .. } = conditions.hardware else { return chosen };
    if !conditions.batch_invariant {
        return chosen;
    }
    let length = USUAL.min(conditions.longest.get());
    let mut points = Vec::new();
    let mut samples = FEWEST;
    let mut best: Option<f64> = None;
    // Larger ones are tried for as long as the last two doublings brought something.
    let mut barren = 0;
    while barren < 2 && samples * length <= conditions.max_batch_tokens.get() && fits(conditions, samples) {
        let Some(seconds) = measure(chosen.sessions, samples, length) else { break };
        let rate = float(samples * length * chosen.sessions.get()) / seconds;
        points.push((samples * length, rate, seconds));
        barren = if best.is_none_or(|best| rate > best * CLEARLY) { 0 } else { barren + 1 };
        best = Some(best.map_or(rate, |best| best.max(rate)));
        samples *= 2;
    }
    let Some(best) = best else { return chosen };
    // The smallest that is about as fast as the fastest: what is larger only makes everyone wait longer.
    if let Some(&(budget, rate, seconds)) = points.iter().find(|(_, rate, _)| rate * CLEARLY >= best) {
        chosen.batch_tokens = budget;
        chosen.batch_samples = most_samples(conditions, budget);
        chosen.tokens_per_second = Some(rate);
        let short = SHORT.min(length);
        if let Some(single) = measure(chosen.sessions, 1, short) {
            let per_token = (seconds - single) / float(budget.saturating_sub(short).max(1));
            if per_token > 0.0 {
                chosen.overhead_tokens = whole((single / per_token - float(short)).max(0.0));
            }
        }
        if chosen.sessions > devices
            && let Some(seconds) = measure(devices, budget / length, length)
        {
            let fewer = float(budget * devices.get()) / seconds;
            if rate < fewer * CLEARLY {
                chosen.sessions = devices;
                chosen.tokens_per_second = Some(fewer);
            }
        }
    }
    chosen
}

fn fits(conditions: &Conditions, samples: usize) -> bool {
    match conditions.hardware {
        Hardware::Gpu { most_samples: Some(most), .. } => samples <= most.get(),
        _ => true,
    }
}

/// As many short samples as the budget holds.
fn most_samples(conditions: &Conditions, budget: usize) -> usize {
    if !conditions.batch_invariant {
        return 1;
    }
    let samples = (budget / SHORT).max(1);
    match conditions.hardware {
        Hardware::Gpu { most_samples: Some(most), .. } => samples.min(most.get()),
        _ => samples,
    }
}

#[cfg(test)]
mod tests;
