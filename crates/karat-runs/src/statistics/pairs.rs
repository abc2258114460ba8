//! Rewards beside another number of the same samples, over a run: a second judge's score, an outcome, a sensitivity.

use serde::{Deserialize, Serialize};

use super::{
    Moments,
    series::{Merge, REFERENCE, Steps, WINDOW},
};

/// The pairs of some steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PairBucket {
    pub(crate) first_step: u64,
    pub(crate) last_step: u64,
    pub(crate) pairs: Moments,
}

impl Merge for PairBucket {
    fn first_step(&self) -> u64 {
        self.first_step
    }

    fn merge(&mut self, other: &Self) {
        self.last_step = self.last_step.max(other.last_step);
        self.pairs.merge(&other.pairs);
    }

    fn at(step: u64) -> Self {
        Self { first_step: step, last_step: step, pairs: Moments::default() }
    }
}

/// Rewards (`x`) beside another number (`y`), over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PairSeries {
    steps: Steps<PairBucket>,
    reference: PairBucket,
    reference_closed: bool,
}

impl PairSeries {
    /// Takes a pair of a step in.
    pub fn add(&mut self, step: u64, reward: f64, other: f64) {
        let (bucket, _) = self.steps.bucket(step);
        bucket.last_step = bucket.last_step.max(step);
        bucket.pairs.add(reward, other);
        if self.reference_closed {
            return;
        }
        if self.reference.pairs.count() == 0 {
            self.reference = PairBucket::at(step);
        }
        // A fraction of the samples has pairs: the beginning takes fewer of them.
        if self.reference.pairs.count() >= REFERENCE / 2 && step > self.reference.last_step {
            self.reference_closed = true;
            return;
        }
        self.reference.last_step = self.reference.last_step.max(step);
        self.reference.pairs.add(reward, other);
    }

    /// The buckets, oldest step first.
    #[must_use]
    pub fn buckets(&self) -> &[PairBucket] {
        self.steps.buckets()
    }

    /// The pairs of the run's beginning.
    #[must_use]
    pub fn reference(&self) -> &Moments {
        &self.reference.pairs
    }

    /// How many pairs there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets().iter().map(|bucket| bucket.pairs.count()).sum()
    }

    /// The latest pairs, as many as make a window; none while they would reach into the beginning.
    #[must_use]
    pub fn window(&self) -> Option<Moments> {
        let mut window = Moments::default();
        for bucket in self.buckets().iter().rev().take_while(|bucket| bucket.first_step > self.reference.last_step) {
            if window.count() >= WINDOW {
                break;
            }
            window.merge(&bucket.pairs);
        }
        (self.reference_closed && window.count() >= WINDOW).then_some(window)
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.buckets())
    }
}
