//! Signals that a policy has begun to exploit its reward, and not merely to earn it.
//!
//! Each file here is one formula over the run's [reference](View) and its latest samples, with an interval, and the
//! signals that are read with it. A signal fires only where its whole interval lies beyond its limit and both sides have
//! [`LEAST`] samples, so that nothing is alarmed by ten of them. Intervals are [`DEVIATIONS`] standard errors wide on each
//! side, since a run is looked at again and again. [`CATALOGUE`] is the list of them.

mod disagreement_rises;
mod interval;
mod length_explains;
mod ranks_part;
mod reward_drifts;
mod reward_parts;
mod sensitivity_rises;
mod share_rises;
mod worst_case_parts;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::statistics::{Bucket, Moments};

/// The fewest samples on each side of a comparison.
pub const LEAST: u64 = 64;
/// How many standard errors an interval reaches to each side: 99.7 % of a normal distribution.
pub const DEVIATIONS: f64 = 3.0;
/// The share of a normal distribution within [`DEVIATIONS`].
const LEVEL: f64 = 0.9973;

/// Every signal, in the order of the documentation.
pub const CATALOGUE: [Entry; 11] = [
    disagreement_rises::ENTRY,
    worst_case_parts::ENTRY,
    ranks_part::ENTRY,
    length_explains::ENTRY,
    reward_drifts::ENTRY,
    reward_parts::JUDGE_PARTS,
    reward_parts::OUTCOMES_PART,
    sensitivity_rises::ENTRY,
    share_rises::BOUNDS_REACHED,
    share_rises::DUPLICATES_RISE,
    share_rises::REFUSALS_RISE,
];

/// A signal and what it says of itself.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its name in replies, events and metrics.
    pub name: &'static str,
    /// What it means that it fires.
    pub summary: &'static str,
    /// How its value is computed, and its limit.
    pub formula: &'static str,
    /// Where the formula comes from; "ours" where it is this project's.
    pub source: &'static str,
    /// The signal's value; none where there is too little to tell, or the run lacks what it looks at.
    pub read: fn(&View<'_>) -> Option<Reading>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What signals look at: one model's rewards at the run's beginning, or a registered reference, and its latest ones.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is compared with.
    pub reference: &'a Bucket,
    /// The latest samples.
    pub window: &'a Bucket,
    /// Rewards beside a second judge's scores.
    pub judge: Option<Sides<'a>>,
    /// Rewards beside outcomes.
    pub outcomes: Option<Sides<'a>>,
    /// Rewards beside what edits that shouldn't matter changed them by.
    pub sensitivity: Option<Sides<'a>>,
}

/// Pairs at the run's beginning, and the latest ones.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// At the beginning.
    pub reference: &'a Moments,
    /// The latest ones.
    pub window: &'a Moments,
}

/// A signal's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    /// The value.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// What the whole interval must lie above for the signal to fire.
    pub limit: f64,
    /// Whether the signal fires.
    pub fires: bool,
    /// How many of the latest samples it is the value of.
    pub samples: u64,
    /// How many samples they were compared with.
    pub reference_samples: u64,
}

impl Reading {
    /// A value with half the width of its interval; fires where the whole of it lies above the limit. None where a number
    /// isn't finite or a side has too few samples.
    fn above(limit: f64, value: f64, half: f64, [reference_samples, samples]: [u64; 2]) -> Option<Self> {
        let sound = value.is_finite() && half.is_finite() && samples.min(reference_samples) >= LEAST;
        let (low, high) = (value - half, value + half);
        sound.then_some(Self { value, low, high, limit, fires: low > limit, samples, reference_samples })
    }

    /// The same value, which fires only where something else holds as well.
    fn only_if(self, also: bool) -> Self {
        Self { fires: self.fires && also, ..self }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all signals share.

    use super::*;
    use crate::statistics::{Bucket, Gathered, Observation};

    /// A bucket of samples that `sample` makes of numbers from 0 to 1.
    pub(crate) fn bucket(count: u32, sample: impl Fn(f64) -> (Observation, Vec<f32>)) -> Bucket {
        let mut bucket = Bucket::at(0);
        for number in 0..count {
            let (observation, members) = sample(f64::from(number) / f64::from(count - 1));
            bucket.add(number.into(), Gathered::of(&[observation], &members).samples(), 0);
        }
        bucket
    }

    /// What a signal tells of two buckets.
    pub(crate) fn read(entry: &Entry, reference: &Bucket, window: &Bucket) -> Option<Reading> {
        (entry.read)(&View { reference, window, judge: None, outcomes: None, sensitivity: None })
    }

    /// Moments of pairs that `pair` makes of numbers from 0 to 1.
    pub(crate) fn moments(count: u32, pair: impl Fn(f64) -> (f64, f64)) -> Moments {
        let mut moments = Moments::default();
        for number in 0..count {
            let (x, y) = pair(f64::from(number) / f64::from(count - 1));
            moments.add(x, y);
        }
        moments
    }

    pub(crate) fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{actual} is not {expected}");
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::bucket, *};
    use crate::statistics::testing::observation;

    #[test]
    fn nothing_is_alarmed_by_ten_samples_or_by_more_of_the_same() {
        let wild = |count| {
            bucket(count, |u| {
                let mut sample = observation(100.0 * u);
                (sample.variance, sample.worst_case, sample.length) = (2500.0, -1e6, 9000);
                (sample.at_bound, sample.refusal) = (true, true);
                (sample, vec![u as f32, -u as f32])
            })
        };
        let calm = bucket(500, |u| (observation(u), vec![u as f32, u as f32]));
        let pairs = Moments::default();
        let sides = Some(Sides { reference: &pairs, window: &pairs });
        for entry in &CATALOGUE {
            for (reference, window) in [(&calm, &wild(10)), (&wild(10), &calm), (&calm, &calm)] {
                let view = View { reference, window, judge: sides, outcomes: sides, sensitivity: sides };
                let reading = (entry.read)(&view);
                assert!(reading.is_none_or(|reading| !reading.fires), "{}: {reading:?}", entry.name);
            }
        }
    }

    #[test]
    fn every_signal_says_what_it_is() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        for entry in &CATALOGUE {
            assert!(!entry.summary.is_empty() && !entry.formula.is_empty() && !entry.source.is_empty(), "{entry:?}");
        }
    }
}
