//! How far a candidate lies from its nearest others.
//!
//! The mean distance to the k nearest neighbours: the novelty of quality-diversity search (Lehman and Stanley 2011).

use std::collections::HashMap;

use crate::numeric::mean;

/// The most numbers that are looked at: about two seconds.
const MOST_STEPS: usize = 1 << 31;

/// What candidates are told apart by, and what comparing two of them looks at.
pub(super) trait Comparable {
    /// How many numbers there are.
    fn size(&self) -> usize;

    /// How far two lie apart, at least 0.
    fn distance(&self, other: &Self) -> f64;
}

/// The mean distance of each candidate to its `neighbours` nearest others, or to all others when there are fewer; 0 for
/// a candidate alone.
///
/// # Errors
/// When each against each takes more than [`MOST_STEPS`] numbers, with how many it would take.
pub(super) fn novelty<T: Comparable>(candidates: &[T], neighbours: usize) -> Result<Vec<f64>, String> {
    let sizes: usize = candidates.iter().map(Comparable::size).fold(0, usize::saturating_add);
    let steps = sizes.saturating_mul(2).saturating_mul(candidates.len());
    if steps > MOST_STEPS {
        return Err(format!(
            "fewer candidates, or shorter texts or embeddings: to compare {} of them with each other takes {steps} steps, \
             and {MOST_STEPS} are the most",
            candidates.len()
        ));
    }
    let mut distances = Vec::with_capacity(candidates.len());
    let nearest = |(index, one): (usize, &T)| {
        distances.clear();
        let others = candidates.iter().enumerate().filter(|(other, _)| *other != index);
        distances.extend(others.map(|(_, other)| one.distance(other)));
        let count = neighbours.min(distances.len());
        if count < distances.len() {
            distances.select_nth_unstable_by(count, f64::total_cmp);
        }
        distances.truncate(count);
        distances.sort_unstable_by(f64::total_cmp);
        mean(&distances)
    };
    Ok(candidates.iter().enumerate().map(nearest).collect())
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

    /// The n-grams of each text; a text shorter than one n-gram is its own only one.
    pub(super) fn of(self, texts: &[String]) -> Vec<Bag> {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut bag = |text: &String| {
            let next = |gram: String| {
                let known = numbers.len();
                *numbers.entry(gram).or_insert(known)
            };
            let mut grams: Vec<usize> = self.grams(text).into_iter().map(next).collect();
            grams.sort_unstable();
            grams.dedup();
            Bag(grams)
        };
        texts.iter().map(&mut bag).collect()
    }

    fn grams(self, text: &str) -> Vec<String> {
        let units: Vec<String> = match self {
            Self::Characters(_) => text.chars().map(String::from).collect(),
            Self::Words(_) => text.split_whitespace().map(str::to_owned).collect(),
        };
        let separator = if matches!(self, Self::Words(_)) { " " } else { "" };
        let length = self.length().clamp(1, units.len().max(1));
        units.windows(length).map(|window| window.join(separator)).collect()
    }
}

/// Which n-grams a text has, by number, in ascending order.
#[derive(Debug)]
pub(super) struct Bag(Vec<usize>);

impl Comparable for Bag {
    fn size(&self) -> usize {
        self.0.len()
    }

    /// One less the share of n-grams that both have, from 0 to 1.
    fn distance(&self, other: &Self) -> f64 {
        let (mut one, mut two, mut shared) = (self.0.as_slice(), other.0.as_slice(), 0);
        while let (Some((first, rest)), Some((second, others))) = (one.split_first(), two.split_first()) {
            shared += usize::from(first == second);
            one = if first <= second { rest } else { one };
            two = if second <= first { others } else { two };
        }
        let union = self.0.len() + other.0.len() - shared;
        if union == 0 { 0.0 } else { 1.0 - shared as f64 / union as f64 }
    }
}

impl Comparable for Vec<f64> {
    fn size(&self) -> usize {
        self.len()
    }

    /// The Euclidean distance, without overflow on the way.
    fn distance(&self, other: &Self) -> f64 {
        let differences = || self.iter().zip(other).map(|(a, b)| (a - b).abs());
        let largest = differences().fold(0.0, f64::max);
        if largest > 0.0 && largest.is_finite() {
            largest * differences().map(|difference| (difference / largest).powi(2)).sum::<f64>().sqrt()
        } else {
            largest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{assert_all_close, assert_close};

    #[test]
    fn the_nearest_neighbours_count() {
        let places = [vec![0.0], vec![1.0], vec![10.0]];
        assert_all_close(&novelty(&places, 1).unwrap(), &[1.0, 1.0, 9.0]);
        assert_all_close(&novelty(&places, 5).unwrap(), &[5.5, 5.0, 9.5]);
        assert_all_close(&novelty(&places[..1], 3).unwrap(), &[0.0]);
    }

    #[test]
    fn texts_are_compared_by_their_runs() {
        let distance = |grams: Grams, one: &str, other: &str| {
            let bags = grams.of(&[one.to_owned(), other.to_owned()]);
            bags[0].distance(&bags[1])
        };
        assert_close(distance(Grams::Words(1), "a b c", "b c d"), 0.5);
        assert_close(distance(Grams::Words(1), "a b", " a  b "), 0.0);
        assert_close(distance(Grams::Characters(3), "ab", "ab"), 0.0);
        assert_close(distance(Grams::Characters(3), "", ""), 0.0);
        assert_close(vec![3e200, 0.0].distance(&vec![0.0, 4e200]) / 1e200, 5.0);
    }

    #[test]
    fn more_than_can_be_compared_is_refused_at_once() {
        let long = vec![vec![0.0; 1_000]; 4_096];
        assert!(novelty(&long, 3).unwrap_err().contains("4096"));
    }
}
