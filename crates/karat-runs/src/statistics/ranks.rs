//! Which share of a digest's numbers lies below a value, for who asks for many values.

use tdigests::{Centroid, TDigest};

/// A digest's means, each with the share of numbers below it: what [`TDigest::estimate_rank`] finds by adding up all
/// weights, for who asks for many ranks.
pub(super) struct Ranks(Vec<(f64, f64)>);

impl Ranks {
    pub(super) fn of(digest: &TDigest) -> Self {
        let centroids = digest.centroids();
        let all: f64 = centroids.iter().map(|centroid| centroid.weight).sum();
        let mut below = 0.0;
        let places = centroids.iter().map(|Centroid { mean, weight }| {
            let share = (below + (weight - 1.0) / 2.0) / (all - 1.0);
            below += weight;
            (*mean, share)
        });
        Self(places.collect())
    }

    /// The share of numbers that lie below a value, from 0 to 1.
    pub(super) fn rank(&self, value: f64) -> f64 {
        self.rank_above(self.0.partition_point(|(mean, _)| *mean < value), value)
    }

    /// The same of one value after another, none smaller than the last: all in one walk.
    pub(super) fn of_ascending(&self) -> impl FnMut(f64) -> f64 {
        let mut lower = 0;
        move |value| {
            lower += self.0[lower..].iter().take_while(|(mean, _)| *mean < value).count();
            self.rank_above(lower, value)
        }
    }

    /// The values that it tells apart, ascending, each with the share of numbers below it.
    pub(super) fn own(&self) -> impl Iterator<Item = (f64, f64)> {
        let first = if self.0.len() == 1 { 0.5 } else { 0.0 };
        let mut before = None;
        self.0.iter().map(move |(place, share)| {
            let rank = match before {
                None => first,
                Some((same, rank)) if same >= *place => rank,
                Some(_) => *share,
            };
            before = Some((*place, rank));
            (*place, rank)
        })
    }

    /// The same share, of a value that so many places lie below.
    fn rank_above(&self, lower: usize, value: f64) -> f64 {
        let Self(places) = self;
        match (lower.checked_sub(1).map(|lower| places[lower]), places.get(lower)) {
            // One place has nothing beside it: what equals it lies half below.
            (None, Some((mean, _))) if places.len() == 1 && *mean <= value => 0.5,
            (None, _) => 0.0,
            (_, None) => 1.0,
            (Some((left, below)), Some((right, share))) => {
                (below + (value - left) / (right - left) * (share - below)).clamp(0.0, 1.0)
            }
        }
    }
}
