//! Differences with intervals.

use karat_rules::numeric::wilson_interval;

use super::{DEVIATIONS, LEVEL, Reading};
use crate::statistics::{Bucket, Counts, Mean, Moments};

/// The difference of two means and half the width of its interval (Welch 1947; with at least [`super::LEAST`] samples on a
/// side its t is a normal).
pub(super) fn difference(now: &Mean, before: &Mean) -> (f64, f64) {
    (now.mean - before.mean, DEVIATIONS * (now.error_squared() + before.error_squared()).sqrt())
}

/// Whether the mean has risen, for sure.
pub(super) fn has_risen(now: &Mean, before: &Mean) -> bool {
    let (difference, half) = difference(now, before);
    difference > half
}

/// The logarithm of the ratio of two positive means, and half the width of its interval (delta method); none where a mean
/// isn't positive.
pub(super) fn log_ratio(now: &Mean, before: &Mean) -> Option<(f64, f64)> {
    let relative = |mean: &Mean| mean.error_squared() / (mean.mean * mean.mean);
    let positive = now.mean > 0.0 && before.mean > 0.0;
    positive.then(|| ((now.mean / before.mean).ln(), DEVIATIONS * (relative(now) + relative(before)).sqrt()))
}

/// By how much the rewards have risen more than what stands beside them, each in standard deviations of the beginning, and
/// half the width of its interval; none where one of them is constant.
///
/// `v = Δx/s_x − Δy/s_y`; samples bring both, so that its error is that of the one number `x/s_x − y/s_y`.
pub(super) fn parting(now: &Moments, before: &Moments) -> Option<(f64, f64)> {
    let (x, y) = (before.first()?.variance.sqrt(), before.second()?.variance.sqrt());
    if !(x > 0.0 && y > 0.0) {
        return None;
    }
    let apart = |moments: &Moments| moments.combined(1.0 / x, -1.0 / y);
    Some(difference(&apart(now)?, &apart(before)?))
}

/// By how much the share of samples of a kind has risen (Newcombe 1998, method 10: of Wilson's intervals).
pub(super) fn share_rises(view: [&Bucket; 2], limit: f64, kind: fn(&Counts) -> u64) -> Option<Reading> {
    let [before, now] = view;
    let share = |bucket: &Bucket| {
        let hits = kind(&bucket.counts).min(bucket.count());
        let (low, high) = wilson_interval(hits, bucket.count(), LEVEL)?;
        Some((hits as f64 / bucket.count() as f64, low, high))
    };
    let ((old, old_low, old_high), (new, new_low, new_high)) = (share(before)?, share(now)?);
    let value = new - old;
    let below = ((new - new_low).powi(2) + (old_high - old).powi(2)).sqrt();
    let above = ((new_high - new).powi(2) + (old - old_low).powi(2)).sqrt();
    let reading = Reading::above(limit, value, below, [before.count(), now.count()])?;
    Some(Reading { high: value + above, ..reading })
}
