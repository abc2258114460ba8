//! How a digest's centroids come about: of numbers, and of two lists of centroids.

use std::cmp::Ordering;

use tdigests::Centroid;

use super::lanes::range;

/// The most centroids: errors of a percent in the middle, far less at the ends.
const CENTROIDS: usize = 64;
/// The most between the smallest number and the largest.
const GROUPS: usize = CENTROIDS - 2;
/// In how many equal parts of their range numbers are told apart, where that is fine enough.
const PARTS: usize = 128;

/// From here on, `f64` knows whole numbers alone.
const TWO_TO_52: f64 = 4_503_599_627_370_496.0;

/// No sum overflows of as many numbers as there ever are, none of which is larger.
const LARGEST: f64 = 1e290;

/// Finite numbers as centroids in the order of their means, none of which is heavier than the digest's own at its place;
/// the order of the numbers is lost.
///
/// Most numbers need no sorting: those of one part of the range are one centroid. Where more lie in a part than a centroid
/// may hold, as at both ends, they are sorted.
pub(super) fn grouped(numbers: &mut [f64]) -> Vec<Centroid> {
    let (smallest, largest) = range(numbers);
    let parts_each = (PARTS - 1) as f64 / (largest - smallest);
    // Numbers that are all equal, and those whose sums might overflow, are none for this.
    if numbers.len() < PARTS || !parts_each.is_finite() || smallest.abs().max(largest.abs()) > LARGEST {
        return sorted(numbers);
    }
    // Adding so much leaves whole numbers in the lowest bits.
    let place = |number: &f64| ((number - smallest) * parts_each + TWO_TO_52).to_bits() as u8 % PARTS as u8;
    let places: Vec<u8> = numbers.iter().map(place).collect();
    let mut parts = [Part::default(); PARTS];
    for (number, place) in numbers.iter().zip(&places) {
        let part = &mut parts[usize::from(*place) % PARTS];
        part.sum += number;
        part.count += 1.0;
    }
    let all = numbers.len() as f64;
    let largest_squared = |before: f64, part: &Part| largest_squared(before.min(all - before - part.count), all);
    // Of each part whose numbers must be told apart, where the first of them comes to stand.
    let mut crowded = [None; PARTS];
    let (mut before, mut room) = (0.0, 0);
    for (part, crowded) in parts.iter().zip(&mut crowded) {
        if part.count > 1.0 && part.count * part.count > largest_squared(before, part) {
            *crowded = Some(room);
            room += part.count as usize;
        }
        before += part.count;
    }
    let (mut apart, mut next) = (vec![0.0; room], crowded);
    if room > 0 {
        for (number, place) in numbers.iter().zip(&places) {
            if let Some(next) = &mut next[usize::from(*place) % PARTS] {
                apart[*next] = *number;
                *next += 1;
            }
        }
    }
    before = 0.0;
    let mut found = Vec::with_capacity(2 * PARTS);
    for (part, crowded) in parts.iter().zip(crowded) {
        let Part { sum, count } = *part;
        if let Some(begin) = crowded {
            let numbers = &mut apart[begin..begin + count as usize];
            numbers.sort_unstable_by(by_value);
            let most = (largest_squared(before, part).sqrt() as usize).max(1);
            found.extend(numbers.chunks(most).filter_map(|numbers| Group::of(numbers).take()));
        } else if count > 0.0 {
            found.push(Centroid::new(sum / count, count));
        }
        before += count;
    }
    found
}

/// The numbers of a part of the range.
#[derive(Clone, Copy, Default)]
struct Part {
    sum: f64,
    count: f64,
}

/// The square of how many numbers a centroid may hold that lies so far from the nearer end, in numbers, as by
/// [`share_below`], whose slope at a share `q` below it is `2 √(2 q) / GROUPS`.
fn largest_squared(from_end: f64, all: f64) -> f64 {
    const SCALE: f64 = 8.0 / (GROUPS * GROUPS) as f64;
    SCALE * from_end * all
}

fn by_value(one: &f64, other: &f64) -> Ordering {
    one.partial_cmp(other).unwrap_or(Ordering::Equal)
}

/// Finite numbers as centroids by sorting all of them, grouped as by [`compressed`].
fn sorted(numbers: &mut [f64]) -> Vec<Centroid> {
    numbers.sort_unstable_by(by_value);
    let sorted = &*numbers;
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
pub(super) fn compressed(own: &[Centroid], fresh: &[Centroid]) -> Vec<Centroid> {
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
#[derive(Clone, Copy, Default)]
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

    proptest! {
        #[test]
        fn centroids_are_near_their_numbers_wherever_those_lie(
            near in prop::collection::vec(-1.0..1.0_f64, 0..600),
            far in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 0..5),
            equal in 0..200_usize,
        ) {
            let mut numbers = [near, vec![0.5; equal], far].concat();
            let mut sorted = numbers.clone();
            sorted.sort_by(f64::total_cmp);
            let found = grouped(&mut numbers);
            prop_assert!(found.is_sorted_by(|one, next| one.mean <= next.mean));
            let all = sorted.len() as f64;
            let mut before = 0;
            for (place, Centroid { mean, weight }) in found.iter().enumerate() {
                let numbers = &sorted[before..before + *weight as usize];
                let (lowest, highest) = (numbers[0], numbers[numbers.len() - 1]);
                let rounding = 1e-12 * lowest.abs().max(highest.abs());
                prop_assert!((lowest - rounding..=highest + rounding).contains(mean), "{mean} of {lowest} to {highest}");
                let at_an_end = place == 0 || place == found.len() - 1;
                // In the middle as many as a digest's, and one more where its groups end between two.
                let most = if at_an_end { 1.0 } else { 1.0 + all / 31.0 };
                prop_assert!(*weight <= most, "{weight} of {all} numbers lie at {mean}");
                before += numbers.len();
            }
            prop_assert_eq!(before, sorted.len());
        }
    }
}
