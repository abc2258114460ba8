//! One model's rewards over a run, in a bounded number of buckets.
//!
//! Each step has a bucket of its own until there are more than [`BUCKETS`]; then neighbours are merged two by two, so that
//! a run of any length is told at a resolution that halves as it doubles. A run that names no steps has one every
//! [`STEP`] samples.

use serde::{Deserialize, Serialize};

use super::{Bucket, Samples, StepSketch, reservoir::KEPT};

/// The most buckets of a series.
pub(crate) const BUCKETS: usize = 48;
/// How many samples make a step where none is named.
pub(crate) const STEP: u64 = 256;
/// How many samples the run's beginning takes at least, in whole buckets.
pub(crate) const REFERENCE: u64 = 256;
/// How many samples the latest buckets must have together to be compared with the beginning.
pub(crate) const WINDOW: u64 = 128;
/// The most samples whose members are ranked in a window.
const RANKED: usize = 256;

/// A series' buckets by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "B: Serialize", deserialize = "B: Deserialize<'de>"))]
pub struct Steps<B> {
    buckets: Vec<B>,
    /// How many steps a bucket spans.
    width: u64,
}

/// What stands in [`Steps`].
pub trait Merge: Clone {
    /// The first step.
    fn first_step(&self) -> u64;
    /// Takes in the samples of a later neighbour.
    fn merge(&mut self, other: &Self);
    /// An empty one for a step.
    fn at(step: u64) -> Self;
    /// No more samples are expected.
    fn close(&mut self) {}
}

impl<B> Default for Steps<B> {
    fn default() -> Self {
        Self { buckets: Vec::new(), width: 1 }
    }
}

impl<B: Merge> Steps<B> {
    /// The buckets, oldest step first.
    pub(crate) fn buckets(&self) -> &[B] {
        &self.buckets
    }

    /// The bucket of a step, wherever it lies among the others; whether it is new.
    pub(crate) fn bucket(&mut self, step: u64) -> (&mut B, bool) {
        let (width, wanted) = (self.width, step / self.width);
        let place = match self.buckets.len().checked_sub(1) {
            // Nearly always it is the last one.
            Some(last) if self.is_latest(step) => last,
            _ => self.buckets.partition_point(|bucket| bucket.first_step() / width < wanted),
        };
        if self.buckets.get(place).is_some_and(|bucket| bucket.first_step() / width == wanted) {
            return (&mut self.buckets[place], false);
        }
        if let Some(previous) = place.checked_sub(1).and_then(|place| self.buckets.get_mut(place)) {
            previous.close();
        }
        self.buckets.insert(place, B::at(step));
        if self.buckets.len() > BUCKETS {
            self.halve();
            return (self.bucket(step).0, true);
        }
        (&mut self.buckets[place], true)
    }

    /// Whether a step is one of the last bucket's.
    fn is_latest(&self, step: u64) -> bool {
        self.buckets.last().is_some_and(|last| last.first_step() / self.width == step / self.width)
    }

    /// Whether a step comes before the latest two that there are.
    fn is_late(&self, step: u64) -> bool {
        let last_but_one = self.buckets.len().checked_sub(2).map(|place| &self.buckets[place]);
        last_but_one.is_some_and(|bucket| bucket.first_step() / self.width > step / self.width)
    }

    fn halve(&mut self) {
        while self.buckets.len() > BUCKETS {
            self.width = self.width.saturating_mul(2);
            let width = self.width;
            let mut merged: Vec<B> = Vec::with_capacity(BUCKETS);
            for bucket in self.buckets.drain(..) {
                match merged.last_mut() {
                    Some(last) if last.first_step() / width == bucket.first_step() / width => last.merge(&bucket),
                    _ => merged.push(bucket),
                }
            }
            self.buckets = merged;
        }
    }
}

impl Merge for Bucket {
    fn first_step(&self) -> u64 {
        self.first_step
    }

    fn merge(&mut self, other: &Self) {
        Bucket::merge(self, other);
    }

    fn at(step: u64) -> Self {
        Bucket::at(step)
    }

    fn close(&mut self) {
        Bucket::close(self);
    }
}

/// One model's rewards over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    steps: Steps<Bucket>,
    /// The run's beginning once it is over, or what was registered in its place.
    reference: Bucket,
    reference_closed: bool,
    registered: bool,
    count: u64,
}

impl Series {
    /// Takes samples in; whether a new step began. `duplicates` counts how many of some hashes the run had seen before.
    pub fn add(
        &mut self,
        step: Option<u64>,
        mut samples: Samples<'_>,
        mut duplicates: impl FnMut(&[u64]) -> u64,
    ) -> bool {
        let mut began = false;
        while samples.count() > 0 {
            let most = step.map_or(STEP - self.count % STEP, |_| u64::MAX);
            let count = samples.count().min(usize::try_from(most).unwrap_or(usize::MAX));
            let these = samples.split_off(count);
            let step = step.unwrap_or(self.count / STEP);
            self.close_reference_before(step);
            let late = self.steps.is_late(step);
            let duplicates = duplicates(these.hashes);
            let (bucket, new) = self.steps.bucket(step);
            bucket.first_step = bucket.first_step.min(step);
            bucket.last_step = bucket.last_step.max(step);
            bucket.add(self.count, these, duplicates);
            if late {
                // Room for numbers that wait is the latest steps' alone.
                bucket.close();
            }
            began |= new;
            self.count += count as u64;
        }
        began
    }

    /// Whether a step is one of the last bucket's.
    pub(crate) fn is_latest(&self, step: u64) -> bool {
        self.steps.is_latest(step)
    }

    /// What came before a step is the run's beginning, where that is enough and the step is later than all of it.
    fn close_reference_before(&mut self, step: u64) {
        if self.reference_closed || self.count < REFERENCE {
            return;
        }
        let scored: Vec<&Bucket> = self.buckets().iter().filter(|bucket| bucket.count() > 0).collect();
        if scored.iter().all(|bucket| bucket.last_step < step)
            && let Some(mut whole) = merged(&scored, KEPT)
        {
            whole.close();
            whole.counts.unscored = 0;
            self.reference = whole;
            self.reference_closed = true;
        }
    }

    /// Counts samples that got no reward.
    pub fn add_unscored(&mut self, step: Option<u64>, samples: u64) {
        let step = step.unwrap_or(self.count / STEP);
        self.steps.bucket(step).0.counts.unscored += samples;
    }

    /// Takes another series' rewards in place of the run's own beginning.
    pub fn register_reference(&mut self, other: &Self) -> bool {
        let Some(whole) = merged(&other.buckets().iter().collect::<Vec<_>>(), RANKED) else { return false };
        self.reference = whole;
        self.reference_closed = true;
        self.registered = true;
        true
    }

    /// The buckets, oldest step first.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        self.steps.buckets()
    }

    /// What later steps are compared with; empty until the run's beginning is over.
    #[must_use]
    pub fn reference(&self) -> &Bucket {
        &self.reference
    }

    /// Whether the reference was registered, in place of the run's beginning.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// How many samples were scored.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latest buckets, as many as make a window; none while they would reach into the run's own beginning.
    #[must_use]
    pub fn window(&self) -> Option<Bucket> {
        if !self.reference_closed {
            return None;
        }
        let later = |bucket: &&Bucket| self.registered || bucket.first_step > self.reference.last_step;
        let mut latest = self.buckets().iter().rev().take_while(later);
        let mut window = latest.next()?.clone();
        for bucket in latest {
            if window.count() >= WINDOW {
                break;
            }
            window.merge_keeping(bucket, RANKED);
        }
        // It is asked for more than one thing.
        window.close();
        (window.count() >= WINDOW).then_some(window)
    }

    /// The share of all rewards so far that lie below each value, from 0 to 1; none of none.
    #[must_use]
    pub fn percentiles(&self, rewards: &[f64]) -> Option<Vec<f64>> {
        let mut whole = StepSketch::default();
        self.buckets().iter().for_each(|bucket| whole.merge(&bucket.rewards));
        whole.ranks(rewards)
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.reference.bytes() + self.buckets().iter().map(Bucket::bytes).sum::<usize>()
    }
}

fn merged(buckets: &[&Bucket], kept: usize) -> Option<Bucket> {
    let (first, others) = buckets.split_first()?;
    let mut whole = Bucket::clone(first);
    others.iter().for_each(|bucket| whole.merge_keeping(bucket, kept));
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{Gathered, testing::observation};

    fn series(steps: u64, each: u64) -> Series {
        let mut series = Series::default();
        for step in 0..steps {
            let samples: Vec<_> = (0..each).map(|i| observation(step as f64 + i as f64 / each as f64)).collect();
            let members: Vec<f32> = samples.iter().flat_map(|s| [s.reward as f32, -s.reward as f32]).collect();
            series.add(Some(step), Gathered::of(&samples, &members).samples(), |_| 0);
        }
        series
    }

    #[test]
    fn a_long_run_keeps_all_samples_in_few_buckets() {
        let series = series(1000, 16);
        assert!(series.buckets().len() <= BUCKETS);
        assert_eq!(series.buckets().iter().map(Bucket::count).sum::<u64>(), 16_000);
        let steps: Vec<(u64, u64)> = series.buckets().iter().map(|b| (b.first_step, b.last_step)).collect();
        assert!(steps.windows(2).all(|two| two[0].1 < two[1].0), "{steps:?}");
        assert_eq!((steps[0].0, steps.last().unwrap().1), (0, 999));
        assert!(series.bytes() < 300 << 10, "{}", series.bytes());
    }

    #[test]
    fn steps_may_come_in_any_order() {
        let mut series = Series::default();
        let one = Gathered::of(&[observation(1.0)], &[]);
        for step in [5, 1, 3, 1, u64::MAX, 0] {
            series.add(Some(step), one.samples(), |_| 0);
        }
        let counts: Vec<(u64, u64)> = series.buckets().iter().map(|b| (b.first_step, b.count())).collect();
        assert_eq!(counts, [(0, 1), (1, 2), (3, 1), (5, 1), (u64::MAX, 1)]);
        for step in (0..200).rev() {
            series.add(Some(step * 1000), one.samples(), |_| 0);
        }
        assert!(series.buckets().len() <= BUCKETS);
        assert_eq!(series.buckets().iter().map(Bucket::count).sum::<u64>(), 206);
    }

    #[test]
    fn the_window_never_reaches_into_the_beginning() {
        assert!(series(16, 16).window().is_none(), "the first 256 samples are the beginning");
        assert!(series(17, 16).window().is_none(), "sixteen samples are no window");
        let later = series(40, 16);
        let window = later.window().unwrap();
        assert!(window.count() >= WINDOW && window.first_step > later.reference().last_step);
        assert_eq!(window.last_step, 39);
    }

    #[test]
    fn steps_that_nobody_names_are_counted() {
        let mut series = Series::default();
        let samples = vec![observation(0.0); 700];
        series.add(None, Gathered::of(&samples, &[]).samples(), |_| 0);
        let counts: Vec<u64> = series.buckets().iter().map(Bucket::count).collect();
        assert_eq!(counts, [256, 256, 188]);
    }
}
