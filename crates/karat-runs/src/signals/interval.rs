//! Differences with intervals.

use super::DEVIATIONS;
use crate::statistics::Mean;

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
