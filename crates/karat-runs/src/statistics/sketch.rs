//! Quantiles of numbers that come one by one, in bounded memory.
//!
//! A t-digest (Dunning 2021, "The t-digest: Efficient estimates of distributions") of few centroids. Numbers wait as they
//! come. Many are folded in at once, by one pass over both lists (the paper's merging variant), so that one of them costs
//! next to nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tdigests::{Centroid, TDigest};

use super::{
    centroids::{compressed, grouped},
    lanes::sums,
    ranks::Ranks,
};

/// The quantiles of a step's rewards, of which as many as a common step has wait together.
pub type StepSketch = Sketch<1024>;
/// The quantiles of a task's rewards, of which there are more in a run.
pub type TaskSketch = Sketch<WAITING_OF_TASK>;

const WAITING_OF_TASK: usize = 512;

/// A distribution's quantiles. So many numbers wait before they are folded in, which takes nearly as long for few of them as
/// for many.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<(f64, f64)>", from = "Vec<(f64, f64)>")]
pub struct Sketch<const WAITING: usize> {
    digest: Option<TDigest>,
    /// Fewer than `WAITING`.
    waiting: Vec<f64>,
}

impl<const WAITING: usize> From<Sketch<WAITING>> for Vec<(f64, f64)> {
    fn from(mut sketch: Sketch<WAITING>) -> Self {
        sketch.fold();
        let centroids = sketch.digest.as_ref().map_or(&[][..], TDigest::centroids);
        centroids.iter().map(|centroid| (centroid.mean, centroid.weight)).collect()
    }
}

impl<const WAITING: usize> From<Vec<(f64, f64)>> for Sketch<WAITING> {
    fn from(centroids: Vec<(f64, f64)>) -> Self {
        let sound = |(mean, weight): &(f64, f64)| mean.is_finite() && weight.is_finite() && *weight > 0.0;
        let centroids: Vec<Centroid> =
            centroids.into_iter().filter(sound).map(|(mean, weight)| Centroid::new(mean, weight)).collect();
        let digest = (!centroids.is_empty()).then(|| TDigest::from_centroids(centroids));
        Self { digest, waiting: Vec::new() }
    }
}

impl<const WAITING: usize> Sketch<WAITING> {
    /// Takes numbers in; those that aren't finite are left out.
    pub fn add_all(&mut self, values: &[f64]) {
        if self.waiting.len() + values.len() < WAITING {
            // At once and no more than that: growing by and by may take twice as much.
            self.waiting.reserve_exact(WAITING - self.waiting.len());
            self.waiting.extend_from_slice(values);
        } else {
            let mut all = std::mem::take(&mut self.waiting);
            all.extend_from_slice(values);
            self.fold_all(all);
        }
    }

    /// Takes in all that another one saw.
    pub fn merge(&mut self, other: &Self) {
        self.waiting.extend(&other.waiting);
        self.fold();
        if let Some(theirs) = &other.digest {
            self.fold_in(theirs.centroids());
        }
    }

    /// Folds what waits in and gives its memory back, as for a sketch that nothing more is expected of.
    pub fn fold(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.fold_all(waiting);
    }

    fn fold_all(&mut self, mut values: Vec<f64>) {
        // No other number times 0 is 0. Nearly always all are finite.
        if sums(&values, &values, |value, _| [value * 0.0]) != [0.0] {
            values.retain(|value| value.is_finite());
        }
        self.fold_in(&grouped(&mut values));
    }

    /// Takes in centroids in the order of their means.
    fn fold_in(&mut self, fresh: &[Centroid]) {
        if fresh.is_empty() {
            return;
        }
        let own = self.digest.as_ref().map_or(&[][..], TDigest::centroids);
        self.digest = Some(TDigest::from_centroids(compressed(own, fresh)));
    }

    /// The digest of all numbers, those that wait included.
    fn whole(&self) -> Option<Cow<'_, TDigest>> {
        if self.waiting.is_empty() {
            return self.digest.as_ref().map(Cow::Borrowed);
        }
        let mut folded = self.clone();
        folded.fold();
        folded.digest.map(Cow::Owned)
    }

    /// Several quantiles at levels from 0 to 1; none of nothing.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, levels: [f64; N]) -> Option<[f64; N]> {
        let digest = self.whole()?;
        Some(levels.map(|level| digest.estimate_quantile(level)))
    }

    /// The share of numbers that lie below each value, from 0 to 1; none of nothing.
    #[must_use]
    pub fn ranks(&self, values: &[f64]) -> Option<Vec<f64>> {
        let ranks = Ranks::of(self.whole()?.as_ref());
        Some(values.iter().map(|value| ranks.rank(*value)).collect())
    }

    /// The probability that a number of this distribution is above one of another's, ties counted half, both drawn alone.
    #[must_use]
    pub fn beats(&self, other: &Self) -> Option<f64> {
        let (ours, theirs) = (self.whole()?, Ranks::of(other.whole()?.as_ref()));
        let mut below = theirs.of_ascending();
        let all: f64 = ours.centroids().iter().map(|centroid| centroid.weight).sum();
        let wins: f64 = ours.centroids().iter().map(|centroid| centroid.weight * below(centroid.mean)).sum();
        Some((wins / all).clamp(0.0, 1.0))
    }

    /// The largest distance between two distribution functions (Kolmogorov and Smirnov), from 0 to 1, at the places that
    /// the sketches keep.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Option<f64> {
        let (ours, theirs) = (Ranks::of(self.whole()?.as_ref()), Ranks::of(other.whole()?.as_ref()));
        let largest_at = |these: &Ranks, others: &Ranks| {
            let mut other = others.of_ascending();
            these.own().map(|(place, rank)| (rank - other(place)).abs()).fold(0.0, f64::max)
        };
        Some(largest_at(&ours, &theirs).max(largest_at(&theirs, &ours)).min(1.0))
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let centroids = self.digest.as_ref().map_or(0, |digest| digest.centroids().len());
        size_of::<Self>() + self.waiting.capacity() * size_of::<f64>() + centroids * size_of::<Centroid>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> TaskSketch {
        let mut sketch = TaskSketch::default();
        sketch.add_all(&values.into_iter().collect::<Vec<f64>>());
        sketch
    }

    #[test]
    fn quantiles_are_near_those_of_all_numbers() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut values: Vec<f64> = (0..20_000).map(|_| random.f64().powi(3) * 10.0 - 5.0).collect();
        let sketch = of(values.iter().copied());
        values.sort_by(f64::total_cmp);
        for level in [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99] {
            let [found] = sketch.quantiles([level]).unwrap();
            let rank = values.partition_point(|value| *value < found) as f64 / values.len() as f64;
            assert!((rank - level).abs() < 0.02, "{level} is {found}, whose rank is {rank}");
        }
        assert!(sketch.bytes() < 8 << 10, "{}", sketch.bytes());
    }

    #[test]
    fn merged_sketches_and_written_ones_tell_what_the_whole_tells() {
        let (low, high) = (of((0..500).map(f64::from)), of((500..1000).map(f64::from)));
        let mut merged = low.clone();
        merged.merge(&high);
        let [middle] = merged.quantiles([0.5]).unwrap();
        assert!((middle - 500.0).abs() < 15.0, "{middle}");
        let written = serde_json::to_string(&merged).unwrap();
        let read: TaskSketch = serde_json::from_str(&written).unwrap();
        assert!((read.quantiles([0.9]).unwrap()[0] - 900.0).abs() < 15.0);
        assert!(high.beats(&low).unwrap() > 0.99 && low.beats(&high).unwrap() < 0.01);
        assert!((merged.beats(&merged).unwrap() - 0.5).abs() < 0.02);
        assert!(low.distance(&high).unwrap() > 0.98 && low.distance(&low).unwrap() < 1e-9);
    }

    #[test]
    fn ranks_are_those_of_the_digest() {
        for count in [1, 2, 3, 90, 5000] {
            let sketch = of((0..count).map(|number| f64::from(number % 37).powi(2) / 7.0));
            let values: Vec<f64> = (-10..200).map(|number| f64::from(number) * 0.93).chain([0.0, 1.0 / 7.0]).collect();
            let digest = sketch.whole().unwrap();
            for (value, rank) in values.iter().zip(sketch.ranks(&values).unwrap()) {
                assert!((rank - digest.estimate_rank(*value).clamp(0.0, 1.0)).abs() < 1e-12, "{count}: {value}");
            }
            let ranks = Ranks::of(&digest);
            for (place, rank) in ranks.own() {
                assert!((rank - ranks.rank(place)).abs() < 1e-12, "{count}: {place}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let hostile = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(of(hostile).quantiles([0.5]), None);
        let sketch =
            of((0..3 * WAITING_OF_TASK).map(|number| hostile.get(number % 7).copied().unwrap_or(number as f64)));
        assert_eq!(sketch.quantiles([0.0, 1.0]), Some([4.0, 1532.0]));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(TaskSketch::default().beats(&of([1.0])), None);
    }
}
