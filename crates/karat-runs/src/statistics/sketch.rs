//! Quantiles of numbers that come one by one, in bounded memory.
//!
//! A t-digest (Dunning 2021, "The t-digest: Efficient estimates of distributions") of at most [`CENTROIDS`] centroids.
//! Numbers wait as they come. Many are folded in at once, by one sort and one pass over both sorted lists (the paper's
//! merging variant), so that one of them costs next to nothing.

use std::{borrow::Cow, cmp::Ordering};

use serde::{Deserialize, Serialize};
use tdigests::{Centroid, TDigest};

use super::ranks::Ranks;

/// The most centroids: errors of a percent in the middle, far less at the ends.
const CENTROIDS: usize = 64;
/// The most between the smallest number and the largest.
const GROUPS: usize = CENTROIDS - 2;
/// How many numbers wait before they are folded in, which takes nearly as long for few of them as for many.
const WAITING: usize = 512;
/// Of how many parts of their range numbers that are sorted lie in one.
const PARTS: usize = 128;

/// A distribution's quantiles.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<(f64, f64)>", from = "Vec<(f64, f64)>")]
pub struct Sketch {
    digest: Option<TDigest>,
    /// Fewer than [`WAITING`].
    waiting: Vec<f64>,
}

impl From<Sketch> for Vec<(f64, f64)> {
    fn from(mut sketch: Sketch) -> Self {
        sketch.fold();
        let centroids = sketch.digest.as_ref().map_or(&[][..], TDigest::centroids);
        centroids.iter().map(|centroid| (centroid.mean, centroid.weight)).collect()
    }
}

impl From<Vec<(f64, f64)>> for Sketch {
    fn from(centroids: Vec<(f64, f64)>) -> Self {
        let sound = |(mean, weight): &(f64, f64)| mean.is_finite() && weight.is_finite() && *weight > 0.0;
        let centroids: Vec<Centroid> =
            centroids.into_iter().filter(sound).map(|(mean, weight)| Centroid::new(mean, weight)).collect();
        let digest = (!centroids.is_empty()).then(|| TDigest::from_centroids(centroids));
        Self { digest, waiting: Vec::new() }
    }
}

impl Sketch {
    /// Takes numbers in; those that aren't finite are left out.
    pub fn add_all(&mut self, mut values: impl Iterator<Item = f64> + Clone) {
        loop {
            let room = WAITING - self.waiting.len();
            // At once and no more than that: growing by and by may take twice as much.
            self.waiting.reserve_exact(room);
            self.waiting.extend(values.clone().take(room));
            if self.waiting.len() < WAITING {
                return;
            }
            self.fold();
            if values.nth(room - 1).is_none() {
                return;
            }
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

    /// Folds what waits in and gives its memory back, for a sketch that nothing more is expected of.
    pub fn close(&mut self) {
        self.fold();
        self.waiting = Vec::new();
    }

    fn fold(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|value| value.is_finite());
        sort(&mut waiting);
        self.fold_in(&grouped(&waiting));
        waiting.clear();
        self.waiting = waiting;
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
        let largest_at = |ranks: &Ranks| {
            let (mut our, mut their) = (ours.of_ascending(), theirs.of_ascending());
            ranks.places().map(|place| (our(place) - their(place)).abs()).fold(0.0, f64::max)
        };
        Some(largest_at(&ours).max(largest_at(&theirs)).min(1.0))
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let centroids = self.digest.as_ref().map_or(0, |digest| digest.centroids().len());
        size_of::<Self>() + self.waiting.capacity() * size_of::<f64>() + centroids * size_of::<Centroid>()
    }
}

/// Sorts finite numbers: first by which of many equal parts of their range they lie in, and then within each. Where they
/// lie anyhow evenly, that takes less than two thirds of what comparing all of them does.
fn sort(numbers: &mut [f64]) {
    let by_value = |one: &f64, other: &f64| one.partial_cmp(other).unwrap_or(Ordering::Equal);
    let (mut smallest, mut largest) = (f64::MAX, f64::MIN);
    for number in &*numbers {
        // As `f64::min`, of finite numbers, in one instruction.
        smallest = if *number < smallest { *number } else { smallest };
        largest = if *number > largest { *number } else { largest };
    }
    let parts_each = (PARTS - 1) as f64 / (largest - smallest);
    if numbers.len() < PARTS || !parts_each.is_finite() {
        numbers.sort_unstable_by(by_value);
        return;
    }
    // Where the range is beyond all numbers, all lie in the first part.
    let placed: Vec<(f64, u8)> =
        numbers.iter().map(|number| (*number, ((number - smallest) * parts_each) as u8)).collect();
    let mut next = [0; PARTS];
    placed.iter().for_each(|(_, part)| next[usize::from(*part) % PARTS] += 1);
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    for (number, part) in placed {
        let next = &mut next[usize::from(part) % PARTS];
        numbers[*next] = number;
        *next += 1;
    }
    let mut begin = 0;
    for end in next {
        numbers[begin..end].sort_unstable_by(by_value);
        begin = end;
    }
}

/// Sorted numbers as centroids, grouped as by [`compressed`].
fn grouped(sorted: &[f64]) -> Vec<Centroid> {
    let alone = |number: &f64| Centroid::new(*number, 1.0);
    if sorted.len() <= CENTROIDS {
        return sorted.iter().map(alone).collect();
    }
    let (first, last) = (alone(&sorted[0]), alone(&sorted[sorted.len() - 1]));
    let mut inner = &sorted[1..sorted.len() - 1];
    let all = inner.len() as f64;
    let mut kept = Vec::with_capacity(CENTROIDS);
    kept.push(first);
    for group in 1..=GROUPS {
        let end = (all * share_below(group)) as usize;
        let seen = sorted.len() - 2 - inner.len();
        let numbers = inner.split_off(..end - seen).unwrap_or_default();
        kept.extend(Group::of(numbers).take());
    }
    kept.push(last);
    kept
}

/// Two lists in the order of their means as one of at most [`CENTROIDS`] centroids: light ones at both ends, of which the
/// smallest and the largest number stay what they are, and heavier ones towards the middle.
fn compressed(own: &[Centroid], fresh: &[Centroid]) -> Vec<Centroid> {
    let mut all = merged(own, fresh);
    if all.len() <= CENTROIDS {
        return all;
    }
    let [smallest, largest] = [0, all.len() - 1].map(|end| {
        let taken = all[end].weight.min(1.0);
        all[end].weight -= taken;
        Centroid::new(all[end].mean, taken)
    });
    let inner: f64 = all.iter().map(|centroid| centroid.weight).sum();
    let mut kept = Vec::with_capacity(CENTROIDS);
    kept.push(smallest);
    let (mut before, mut limit) = (0.0, inner * share_below(1));
    let mut group = Group::default();
    for Centroid { mean, weight } in all.into_iter().filter(|centroid| centroid.weight > 0.0) {
        if before + group.weight + weight > limit && kept.len() < GROUPS {
            before += group.weight;
            kept.extend(group.take());
            limit = inner * share_below(kept.len());
        }
        group.add(mean, weight);
    }
    kept.extend(group.take());
    kept.push(largest);
    kept
}

/// The share of all that lies below the end of a group: they grow with their distance from the nearer end.
fn share_below(group: usize) -> f64 {
    let share = group as f64 / GROUPS as f64;
    if share < 0.5 { 2.0 * share * share } else { 1.0 - 2.0 * (1.0 - share) * (1.0 - share) }
}

fn merged(own: &[Centroid], fresh: &[Centroid]) -> Vec<Centroid> {
    let mut all = Vec::with_capacity(own.len() + fresh.len());
    let mut fresh = fresh.iter().peekable();
    for centroid in own {
        while let Some(lower) = fresh.next_if(|fresh| fresh.mean < centroid.mean) {
            all.push(lower.clone());
        }
        all.push(centroid.clone());
    }
    all.extend(fresh.cloned());
    all
}

/// Centroids that become one. Their distances from the first are added up, so that equal numbers stay what they are.
#[derive(Default)]
struct Group {
    first: f64,
    distances: f64,
    weight: f64,
}

impl Group {
    /// Numbers that weigh the same.
    fn of(numbers: &[f64]) -> Self {
        let first = numbers.first().copied().unwrap_or(0.0);
        let distances = numbers.iter().map(|number| number - first).sum();
        Self { first, distances, weight: numbers.len() as f64 }
    }

    fn add(&mut self, mean: f64, weight: f64) {
        if self.weight == 0.0 {
            self.first = mean;
        }
        self.distances += (mean - self.first) * weight;
        self.weight += weight;
    }

    /// What was added, if anything was, to begin anew.
    fn take(&mut self) -> Option<Centroid> {
        let Self { first, distances, weight } = std::mem::take(self);
        let apart = distances / weight;
        (weight > 0.0).then(|| Centroid::new(if apart.is_finite() { first + apart } else { first }, weight))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = f64, IntoIter: Clone>) -> Sketch {
        let mut sketch = Sketch::default();
        sketch.add_all(values.into_iter());
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
        let read: Sketch = serde_json::from_str(&written).unwrap();
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
        }
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let hostile = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(of(hostile).quantiles([0.5]), None);
        let sketch = of((0..3 * WAITING).map(|number| hostile.get(number % 7).copied().unwrap_or(number as f64)));
        assert_eq!(sketch.quantiles([0.0, 1.0]), Some([4.0, 1532.0]));
    }

    proptest! {
        #[test]
        fn numbers_are_sorted_wherever_they_lie(
            near in prop::collection::vec(-1.0..1.0_f64, 0..400),
            far in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 0..5),
            equal in 0..200_usize,
        ) {
            let mut numbers = [near, vec![0.5; equal], far].concat();
            let mut sorted = numbers.clone();
            sorted.sort_by(f64::total_cmp);
            sort(&mut numbers);
            prop_assert_eq!(numbers, sorted);
        }
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Sketch::default().beats(&of([1.0])), None);
    }
}
