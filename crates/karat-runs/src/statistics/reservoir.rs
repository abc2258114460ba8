//! A few samples of many, each as likely as any other, for statistics that need samples side by side.
//!
//! Each sample gets a random key, and those with the lowest keys stay ("bottom-k"; Cohen and Kaplan 2007, "Summarizing
//! data using bottom-k sketches"). So two reservoirs merge into what one would have kept of both.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How many samples stay.
pub(super) const KEPT: usize = 64;

/// The members' scores of the samples that stayed.
///
/// Invariant: where it is full, the highest key comes first, so that nearly all samples are left out by one look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Reservoir {
    keys: Vec<u64>,
    /// The members' scores, `width` a sample.
    scores: Vec<f32>,
    width: usize,
}

/// What is read from a file, in any order.
#[derive(Deserialize)]
struct Written {
    keys: Vec<u64>,
    scores: Vec<f32>,
    width: usize,
}

impl From<Written> for Reservoir {
    fn from(Written { keys, scores, width }: Written) -> Self {
        let mut read = Self { keys, scores, width };
        read.keys.truncate(read.scores.len().checked_div(width).unwrap_or(0));
        read.bring_highest_first();
        read
    }
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
            if self.keys.len() == most {
                self.bring_highest_first();
            }
        } else if key < self.keys[0] {
            self.keys[0] = key;
            self.scores[..self.width].copy_from_slice(members);
            self.bring_highest_first();
        }
    }

    fn bring_highest_first(&mut self) {
        let highest = self.keys.iter().enumerate().max_by_key(|(_, key)| **key);
        if let Some((place, _)) = highest.filter(|(place, _)| *place > 0) {
            self.keys.swap(0, place);
            let (first, others) = self.scores.split_at_mut(place * self.width);
            first[..self.width].swap_with_slice(&mut others[..self.width]);
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
