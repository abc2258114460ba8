//! Samples of a kind become more frequent: rewards at a bound, responses that repeat, responses that decline.

use karat_rules::numeric::wilson_interval;

use super::{Entry, LEVEL, Reading, View};
use crate::statistics::{Bucket, Counts};

/// By which a share may rise.
const LIMIT: f64 = 0.1;
const SOURCE: &str = "ours; the interval: Newcombe 1998";

/// Rewards lie at a bound that a transform holds them to.
pub(super) const BOUNDS_REACHED: Entry = Entry {
    name: "bounds_reached",
    summary: "The share of rewards that lie at the bound of a clip has risen by more than a tenth: there is nothing more to learn from them.",
    formula: "v = share of rewards at a clip's bound, now less at the beginning; fires where v > 0.1",
    source: SOURCE,
    read: |view| rise(view, |counts| counts.at_bound),
};

/// Responses repeat: the policy has collapsed onto a few.
pub(super) const DUPLICATES_RISE: Entry = Entry {
    name: "duplicates_rise",
    summary: "The share of samples that the run had seen before has risen by more than a tenth: the policy repeats itself.",
    formula: "v = share of samples seen before, now less at the beginning; fires where v > 0.1",
    source: SOURCE,
    read: |view| rise(view, |counts| counts.duplicates),
};

/// Responses come to decline.
pub(super) const REFUSALS_RISE: Entry = Entry {
    name: "refusals_rise",
    summary: "The share of responses that begin by declining to answer has risen by more than a tenth.",
    formula: "v = share of responses that begin with one of a short list of phrases, now less at the beginning; fires where v > 0.1",
    source: SOURCE,
    read: |view| rise(view, |counts| counts.refusals),
};

/// By how much the share of samples of a kind has risen (Newcombe 1998, method 10: of Wilson's intervals).
fn rise(view: &View<'_>, kind: fn(&Counts) -> u64) -> Option<Reading> {
    let share = |bucket: &Bucket| {
        let hits = kind(&bucket.counts).min(bucket.count());
        let (low, high) = wilson_interval(hits, bucket.count(), LEVEL)?;
        Some((hits as f64 / bucket.count() as f64, low, high))
    };
    let ((old, old_low, old_high), (new, new_low, new_high)) = (share(view.reference)?, share(view.window)?);
    let value = new - old;
    let below = ((new - new_low).powi(2) + (old_high - old).powi(2)).sqrt();
    let above = ((new_high - new).powi(2) + (old - old_low).powi(2)).sqrt();
    let reading = Reading::above(LIMIT, value, below, [view.reference.count(), view.window.count()])?;
    Some(Reading { high: value + above, ..reading })
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{bucket, read},
        *,
    };
    use crate::statistics::testing::observation;

    type Count = fn(&mut Counts) -> &mut u64;

    #[test]
    fn a_share_that_rises_is_told_and_one_that_was_there_is_not() {
        let kinds: [(Entry, Count); 3] = [
            (BOUNDS_REACHED, |counts| &mut counts.at_bound),
            (DUPLICATES_RISE, |counts| &mut counts.duplicates),
            (REFUSALS_RISE, |counts| &mut counts.refusals),
        ];
        for (entry, count) in kinds {
            let with = |share: f64| {
                let mut bucket = bucket(200, |u| (observation(u), Vec::new()));
                *count(&mut bucket.counts) = (share * 200.0) as u64;
                bucket
            };
            let risen = read(&entry, &with(0.05), &with(0.5)).unwrap();
            assert!((risen.value - 0.45).abs() < 1e-9 && risen.fires, "{entry:?}: {risen:?}");
            assert!(!read(&entry, &with(0.5), &with(0.5)).unwrap().fires, "{entry:?}");
            assert!(!read(&entry, &with(0.0), &with(0.1)).unwrap().fires, "{entry:?}");
        }
    }
}
