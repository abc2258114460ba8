//! How far a candidate lies from its nearest others.
//!
//! The mean distance to the k nearest neighbours: the novelty of quality-diversity search (Lehman and Stanley 2011).

use std::collections::HashSet;

use crate::numeric::{mean, sorted};

/// The mean distance of each candidate to its `neighbours` nearest others, or to all others when there are fewer; 0 for
/// a candidate alone. `distance(i, j)` is asked once for each pair.
pub(super) fn novelty(count: usize, neighbours: usize, distance: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut distances = vec![Vec::with_capacity(count.saturating_sub(1)); count];
    for one in 0..count {
        for other in one + 1..count {
            let between = distance(one, other);
            distances[one].push(between);
            distances[other].push(between);
        }
    }
    distances.iter().map(|to_others| mean(&sorted(to_others)[..neighbours.min(to_others.len())])).collect()
}

/// How far two texts are apart: 1 less the share of n-grams that both have (Jaccard's distance), from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) enum Grams {
    /// Runs of that many characters.
    Characters(usize),
    /// Runs of that many words, separated by white space.
    Words(usize),
}

impl Grams {
    pub(super) fn length(self) -> usize {
        match self {
            Self::Characters(length) | Self::Words(length) => length,
        }
    }

    /// The n-grams of a text; a text shorter than one n-gram is its own only one.
    pub(super) fn of(self, text: &str) -> HashSet<String> {
        let units: Vec<String> = match self {
            Self::Characters(_) => text.chars().map(String::from).collect(),
            Self::Words(_) => text.split_whitespace().map(str::to_owned).collect(),
        };
        let separator = if matches!(self, Self::Words(_)) { " " } else { "" };
        let length = self.length().clamp(1, units.len().max(1));
        units.windows(length).map(|window| window.join(separator)).collect()
    }
}

pub(super) fn jaccard(one: &HashSet<String>, other: &HashSet<String>) -> f64 {
    let union = one.union(other).count();
    if union == 0 { 0.0 } else { 1.0 - one.intersection(other).count() as f64 / union as f64 }
}

/// The Euclidean distance, scaled so that squares don't overflow.
pub(super) fn euclidean(one: &[f64], other: &[f64]) -> f64 {
    let largest = one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if largest > 0.0 && largest.is_finite() {
        largest * one.iter().zip(other).map(|(a, b)| ((a - b) / largest).powi(2)).sum::<f64>().sqrt()
    } else {
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{assert_all_close, assert_close};

    #[test]
    fn the_nearest_neighbours_count() {
        let places = [0.0_f64, 1.0, 10.0];
        let distance = |one: usize, other: usize| (places[one] - places[other]).abs();
        assert_all_close(&novelty(3, 1, distance), &[1.0, 1.0, 9.0]);
        assert_all_close(&novelty(3, 5, distance), &[5.5, 5.0, 9.5]);
        assert_all_close(&novelty(1, 3, distance), &[0.0]);
    }

    #[test]
    fn texts_are_compared_by_their_runs() {
        let words = Grams::Words(1);
        assert_close(jaccard(&words.of("a b c"), &words.of("b c d")), 0.5);
        assert_close(jaccard(&words.of("a b"), &words.of(" a  b ")), 0.0);
        let characters = Grams::Characters(3);
        assert_close(jaccard(&characters.of("ab"), &characters.of("ab")), 0.0);
        assert_close(jaccard(&characters.of(""), &characters.of("")), 0.0);
        assert_close(euclidean(&[3e200, 0.0], &[0.0, 4e200]) / 1e200, 5.0);
    }
}
