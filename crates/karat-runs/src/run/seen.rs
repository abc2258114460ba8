//! How often a run has seen a sample, in fixed memory.
//!
//! A set-associative cache of hashes: each set keeps the samples that it saw last, so that what repeats within some
//! thousand samples is counted exactly, and what comes back after many others counts as new.

use serde::{Deserialize, Serialize};

const SETS: usize = 2048;
const WAYS: usize = 4;

/// Counts by sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<(u64, u32)>", from = "Vec<(u64, u32)>")]
pub struct Seen {
    sets: Option<Box<Sets>>,
}

type Sets = [Set; SETS];

/// Hashes with their counts, the latest sample first; a count of 0 is no sample. Each set is a cache line of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(align(64))]
struct Set([(u64, u32); WAYS]);

impl Set {
    /// Brings a sample to the front; its count so far, which may be changed.
    #[inline]
    fn place(&mut self, hash: u64) -> &mut u32 {
        let Self(set) = self;
        // An empty place is a hash of 0 that was seen as often.
        if set[0].0 != hash {
            match set.iter().position(|(seen, _)| *seen == hash) {
                // As `rotate_right`, which takes several times as long for so few.
                Some(place) => (0..place.min(WAYS - 1)).rev().for_each(|before| set.swap(before, before + 1)),
                None => {
                    set.copy_within(..WAYS - 1, 1);
                    set[0] = (hash, 0);
                }
            }
        }
        &mut set[0].1
    }
}

impl From<Seen> for Vec<(u64, u32)> {
    fn from(seen: Seen) -> Self {
        seen.sets
            .iter()
            .flat_map(|sets| sets.iter())
            .flat_map(|Set(places)| *places)
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl From<Vec<(u64, u32)>> for Seen {
    fn from(counts: Vec<(u64, u32)>) -> Self {
        let mut seen = Self::default();
        // Of each set the latest comes first.
        for (hash, count) in counts.into_iter().rev().filter(|(_, count)| *count > 0) {
            *seen.sets()[set_of(hash)].place(hash) = count;
        }
        seen
    }
}

impl Seen {
    fn sets(&mut self) -> &mut Sets {
        self.sets.get_or_insert_with(|| Box::new([Set::default(); SETS]))
    }

    /// Counts samples; how many of them were seen before.
    pub fn count_all(&mut self, hashes: &[u64]) -> u64 {
        let sets = self.sets();
        let mut before = 0;
        for hash in hashes {
            let count = sets[set_of(*hash)].place(*hash);
            before += u64::from(*count > 0);
            *count = count.saturating_add(1);
        }
        before
    }

    /// How often a sample was seen so far.
    #[must_use]
    pub fn times(&self, hash: u64) -> u32 {
        let places = self.sets.as_ref().map_or(&[][..], |sets| &sets[set_of(hash)].0);
        places.iter().find(|(seen, _)| *seen == hash).map_or(0, |(_, count)| *count)
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sets.as_ref().map_or(0, |sets| size_of_val(&**sets))
    }
}

fn set_of(hash: u64) -> usize {
    (hash % SETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert_eq!((seen.count_all(&[7, 7, 8]), seen.count_all(&[8, 9])), (1, 1));
        assert_eq!((seen.times(7), seen.times(9), seen.times(10)), (2, 1, 0));
        seen.count_all(&(100..1_000_000).collect::<Vec<u64>>());
        assert_eq!(seen.times(7), 0, "it made room");
        assert!(seen.bytes() <= 128 << 10);
        assert_eq!(seen.count_all(&[0]), 0, "a hash of 0 is a sample like others");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut seen = Seen::default();
        seen.count_all(&[1, 1 + SETS as u64, 1, 2]);
        let read: Seen = serde_json::from_str(&serde_json::to_string(&seen).unwrap()).unwrap();
        assert_eq!(read, seen);
    }
}
