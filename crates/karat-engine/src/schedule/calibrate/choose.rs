//! What follows from the measurements: sessions, threads, and how large batches should be.

use std::{num::NonZeroUsize, time::Duration};

use super::{Calibration, Conditions, Policy};

/// One thing to measure: how long a batch takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) crew: Crew,
    pub(super) samples: usize,
    pub(super) tokens: usize,
}

/// Who runs the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crew {
    /// Every parallel session, at the same time, each its own copy of the batch.
    Parallel,
    /// One parallel session, while the others rest.
    One,
    /// The session on all cores.
    Single,
}

/// A length at which a pass's own cost shows.
pub(super) const SHORT: usize = 32;
/// A length at which groups are formed on any hardware.
const MIDDLE: usize = 64;
/// About the length of a usual sample.
pub(super) const USUAL: usize = 128;
/// By how much another choice must be better than the usual one, lest noise makes it.
pub(super) const CLEARLY: f64 = 1.03;
/// By how much the session on all cores must be faster than all others together to be the only one. More than clearly: the
/// others are as fast as the slowest of them, which one core that is disturbed decides, and without them many requests wait
/// for one another for as long as the choice is kept.
const ALONE: f64 = 1.1;
/// By how much the session on all cores must be slower than one thread to be left out. More than clearly: beside other
/// programs it loses most, and on a machine that is only busy now it would be missed later.
const FAR: f64 = 1.25;

/// Chooses by what `measure` says of probes that it measures side by side; it says `None` where there is no time left.
pub(super) fn choose(
    conditions: &Conditions,
    measure: &mut dyn FnMut(&[Probe]) -> Vec<Option<Duration>>,
) -> Calibration {
    let mut chosen = Calibration::assumed(conditions);
    let longest = conditions.longest.get();
    let mut seconds = |probes: &[(Crew, usize, usize)]| -> Vec<Option<f64>> {
        let probe =
            |&(crew, samples, tokens): &(Crew, usize, usize)| Probe { crew, samples, tokens: tokens.min(longest) };
        let probes: Vec<Probe> = probes.iter().map(probe).collect();
        measure(&probes).into_iter().map(|time| time.map(|time| time.as_secs_f64())).collect()
    };

    let crews = [Crew::Parallel, Crew::One, Crew::Single];
    let crews = if chosen.single_threads.is_some() { &crews[..] } else { &crews[..1] };
    let usual: Vec<_> = crews.iter().map(|&crew| (crew, 1, USUAL)).collect();
    divide(&mut chosen, &seconds(&usual), USUAL.min(longest));
    if !conditions.batch_invariant {
        return chosen;
    }
    // Measured as it will be used: all sessions at once, for they share caches and memory.
    let crew = if chosen.sessions == Calibration::assumed(conditions).sessions { Crew::Parallel } else { Crew::Single };
    if let [Some(single), Some(group)] = seconds(&[(crew, 1, SHORT), (crew, 8, SHORT)])[..] {
        let short = SHORT.min(longest);
        let per_token = (group - single) / float(7 * short);
        if per_token > 0.0 {
            chosen.overhead_tokens = whole((single / per_token - float(short)).max(0.0));
        }
    }
    let groups = |groups: &[usize]| seconds(&groups.iter().map(|&samples| (crew, samples, MIDDLE)).collect::<Vec<_>>());
    if let Some(budget) = choose_budget(conditions, groups) {
        chosen.batch_tokens = budget;
        chosen.batch_samples = chosen.batch_samples.max(budget / SHORT);
    }
    chosen
}

/// Divides the machine among sessions, by how long one sample of `tokens` tokens takes all parallel sessions, one
/// of them, and the session on all cores.
fn divide(chosen: &mut Calibration, seconds: &[Option<f64>], tokens: usize) {
    let Some(&Some(parallel)) = seconds.first() else { return };
    let rate = |sessions: usize, seconds: f64| float(sessions * tokens) / seconds;
    let parallel_rate = rate(chosen.sessions.get(), parallel);
    chosen.tokens_per_second = Some(parallel_rate);
    let (Some(threads), &[_, Some(one), Some(single)]) = (chosen.single_threads, seconds) else { return };
    let single_rate = rate(1, single);
    if single_rate > parallel_rate * ALONE {
        *chosen = Calibration {
            sessions: NonZeroUsize::MIN,
            threads,
            single_threads: None,
            tokens_per_second: Some(single_rate),
            ..*chosen
        };
    } else if single > one * FAR {
        chosen.single_threads = None;
    } else {
        // One after another they take `single` each, side by side `one` all together.
        chosen.single_jobs = whole(one / single).max(1);
    }
}

/// The budget that computes the most tokens a second; the usual one unless another is clearly better.
fn choose_budget(conditions: &Conditions, mut seconds: impl FnMut(&[usize]) -> Vec<Option<f64>>) -> Option<usize> {
    let length = MIDDLE.min(conditions.longest.get());
    let most = conditions.max_batch_tokens.get();
    let usual = Policy::default().budget.min(most);
    let mut best: Option<(usize, f64)> = None;
    let mut usual_rate = None;
    let groups: Vec<usize> =
        (0..usize::BITS).map(|power| 1 << power).take_while(|group| group * length <= usual).collect();
    let mut consider = |samples: usize, seconds: Option<f64>| {
        let budget = samples * length;
        let Some(seconds) = seconds else { return false };
        let rate = float(budget) / seconds;
        if best.is_none_or(|(_, best)| rate > best * CLEARLY) {
            best = Some((budget, rate));
        }
        if budget <= usual {
            usual_rate = Some(rate);
        }
        // Larger ones are tried for as long as the last two doublings brought something.
        best.is_some_and(|(best, _)| budget <= best.saturating_mul(2))
    };
    let mut promising = true;
    for (&samples, time) in groups.iter().zip(seconds(&groups)) {
        promising = consider(samples, time);
    }
    let mut samples = groups.last().map_or(1, |last| last * 2);
    while promising && samples * length <= most {
        promising = consider(samples, seconds(&[samples]).first().copied().flatten());
        samples *= 2;
    }
    let (budget, rate) = best?;
    (rate > usual_rate? * CLEARLY).then_some(budget)
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
pub(super) fn float(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a conversion that saturates is wanted")]
pub(super) fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{conditions, positive},
        *,
    };

    /// A machine on which a pass costs `overhead` tokens more than it has, up to a cache of `cache` tokens beyond
    /// which every token costs twice, and all cores together are `speedup` times as fast as one.
    fn machine(overhead: usize, cache: usize, speedup: f64) -> impl FnMut(&[Probe]) -> Vec<Option<Duration>> {
        let time = move |probe: &Probe| {
            let tokens = probe.samples * probe.tokens;
            let cost = float(overhead + tokens + tokens.saturating_sub(cache));
            let speed = if probe.crew == Crew::Single { speedup } else { 1.0 };
            Some(Duration::from_secs_f64(cost / 1000.0 / speed))
        };
        move |probes| probes.iter().map(time).collect()
    }

    #[test]
    fn small_groups_suit_a_small_cache() {
        let chosen = choose(&conditions(2), &mut machine(20, 512, 1.8));
        assert_eq!((chosen.sessions.get(), chosen.threads.get()), (2, 1));
        assert_eq!((chosen.single_threads, chosen.single_jobs), (Some(positive(2)), 1));
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
        assert_eq!((chosen.sessions.get(), chosen.single_jobs), (16, 6));
    }

    #[test]
    fn one_session_on_all_cores_is_taken_when_it_is_faster() {
        let chosen = choose(&conditions(4), &mut machine(20, 512, 5.0));
        assert_eq!((chosen.sessions.get(), chosen.threads.get(), chosen.single_threads), (1, 4, None));
        let chosen = choose(&conditions(4), &mut machine(20, 512, 4.2));
        assert_eq!((chosen.sessions.get(), chosen.single_threads), (4, Some(positive(4))), "noise would explain that");
    }

    #[test]
    fn a_session_on_all_cores_that_is_far_slower_is_left_out() {
        let chosen = choose(&conditions(2), &mut machine(20, 512, 0.7));
        assert_eq!((chosen.sessions.get(), chosen.single_threads), (2, None));
    }

    #[test]
    fn a_graph_that_depends_on_the_batch_runs_alone() {
        let dependent = Conditions { batch_invariant: false, ..conditions(2) };
        assert_eq!(choose(&dependent, &mut machine(20, 512, 1.8)).policy().max_batch, 1);
    }

    #[test]
    fn without_time_the_usual_is_assumed() {
        assert_eq!(
            choose(&conditions(2), &mut |probes| vec![None; probes.len()]),
            Calibration::assumed(&conditions(2))
        );
    }
}
