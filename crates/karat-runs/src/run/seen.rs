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
    sets: Vec<Set>,
}

/// Hashes with their counts, the latest sample first; a count of 0 is no sample. Each set is a cache line of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(align(64))]
struct Set([(u64, u32); WAYS]);

impl From<Seen> for Vec<(u64, u32)> {
    fn from(seen: Seen) -> Self {
        seen.sets.into_iter().flat_map(|Set(places)| places).filter(|(_, count)| *count > 0).collect()
    }
}

impl From<Vec<(u64, u32)>> for Seen {
    fn from(counts: Vec<(u64, u32)>) -> Self {
        let mut seen = Self::default();
        // Of each set the latest comes first.
        for (hash, count) in counts.into_iter().rev().filter(|(_, count)| *count > 0) {
            *seen.place(hash) = count;
        }
        seen
    }
}

impl Seen {
    /// Brings a sample to the front of its set; its count so far, which may be changed.
    fn place(&mut self, hash: u64) -> &mut u32 {
        if self.sets.is_empty() {
            self.sets = vec![Set::default(); SETS];
        }
        let Set(set) = &mut self.sets[set_of(hash)];
        // An empty place is a hash of 0 that was seen as often.
        match set.iter().position(|(seen, _)| *seen == hash) {
            Some(0) => {}
            Some(place) => set[..=place].rotate_right(1),
            None => {
                set.copy_within(..WAYS - 1, 1);
                set[0] = (hash, 0);
            }
        }
        &mut set[0].1
    }

    /// Counts a sample; how often it was seen, this time included.
    pub fn count(&mut self, hash: u64) -> u32 {
        let count = self.place(hash);
        *count = count.saturating_add(1);
        *count
    }

    /// How often a sample was seen so far.
    #[must_use]
    pub fn times(&self, hash: u64) -> u32 {
        let places = self.sets.get(set_of(hash)).map_or(&[][..], |Set(places)| places);
        places.iter().find(|(seen, _)| *seen == hash).map_or(0, |(_, count)| *count)
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<Set>()
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
        assert_eq!((seen.count(7), seen.count(7), seen.count(8)), (1, 2, 1));
        assert_eq!((seen.times(7), seen.times(9)), (2, 0));
        for hash in 100..1_000_000 {
            seen.count(hash);
        }
        assert_eq!(seen.times(7), 0, "it made room");
        assert!(seen.bytes() <= 128 << 10);
        assert_eq!(seen.count(0), 1, "a hash of 0 is a sample like others");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut seen = Seen::default();
        for hash in [1, 1 + SETS as u64, 1, 2] {
            seen.count(hash);
        }
        let read: Seen = serde_json::from_str(&serde_json::to_string(&seen).unwrap()).unwrap();
        assert_eq!(read, seen);
    }
}
