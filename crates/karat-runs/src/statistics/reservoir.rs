//! A few samples of many, each as likely as any other, for statistics that need samples side by side.
//!
//! Each sample gets a random key, and those with the lowest keys stay ("bottom-k"; Cohen and Kaplan 2007, "Summarizing
//! data using bottom-k sketches"). So two reservoirs merge into what one would have kept of both.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How many samples stay.
pub(super) const KEPT: usize = 64;

/// The members' scores of the samples that stayed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reservoir {
    keys: Vec<u64>,
    /// The members' scores, `width` a sample.
    scores: Vec<f32>,
    width: usize,
}

impl Reservoir {
    /// Takes a sample in; `number` tells it from every other one of the series. Samples of another number of members than
    /// the first's are left out.
    pub fn add(&mut self, number: u64, members: &[f32]) {
        self.add_keyed(xxh3_64(&number.to_le_bytes()), members, KEPT);
    }

    fn add_keyed(&mut self, key: u64, members: &[f32], most: usize) {
        if self.keys.is_empty() {
            self.width = members.len();
        }
        if members.len() != self.width || members.len() < 2 {
            return;
        }
        if self.keys.len() < most {
            self.keys.push(key);
            self.scores.extend(members);
            return;
        }
        let highest = self.keys.iter().enumerate().max_by_key(|(_, key)| **key);
        if let Some((place, _)) = highest.filter(|(_, highest)| **highest > key) {
            self.keys[place] = key;
            self.scores[place * self.width..(place + 1) * self.width].copy_from_slice(members);
        }
    }

    /// Takes in what another one kept, up to `most` samples.
    pub fn merge(&mut self, other: &Self, most: usize) {
        for (key, members) in other.keys.iter().zip(other.scores.chunks(other.width.max(1))) {
            self.add_keyed(*key, members, most);
        }
    }

    /// How many samples stayed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing stayed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Each member's scores, one a sample.
    #[must_use]
    pub fn columns(&self) -> Vec<Vec<f64>> {
        let column = |member| self.scores.iter().skip(member).step_by(self.width).map(|score| f64::from(*score));
        (0..self.width).map(|member| column(member).collect()).collect()
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.keys.capacity() * 8 + self.scores.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_one_reservoir_would_have_kept() {
        let (mut one, mut other, mut all) = (Reservoir::default(), Reservoir::default(), Reservoir::default());
        for number in 0..1000_u16 {
            let members = [f32::from(number), 0.0];
            all.add(number.into(), &members);
            if number < 300 { &mut one } else { &mut other }.add(number.into(), &members);
        }
        one.merge(&other, KEPT);
        let sorted = |reservoir: &Reservoir| {
            let mut kept = reservoir.columns()[0].clone();
            kept.sort_by(f64::total_cmp);
            kept
        };
        assert_eq!(sorted(&one), sorted(&all));
        let mean = sorted(&all).iter().sum::<f64>() / KEPT as f64;
        assert!((350.0..650.0).contains(&mean), "the kept are drawn from everywhere: {mean}");
    }

    #[test]
    fn other_shapes_are_left_out() {
        let mut reservoir = Reservoir::default();
        reservoir.add(1, &[1.0]);
        assert!(reservoir.is_empty());
        reservoir.add(2, &[1.0, 2.0]);
        reservoir.add(3, &[1.0, 2.0, 3.0]);
        assert_eq!(reservoir.len(), 1);
    }
}
