//! Where keys and values of texts stand in one shared block of memory.
//!
//! A row takes its past as one tensor. Stringing the texts' own tensors together for each token would copy everything
//! ever computed, so all texts live in one tensor from the start: each leases places, a few tokens at a time, and sees
//! its own alone. A place that nobody sees weighs exactly nothing.

use std::{collections::BTreeSet, ops::Range};

/// How many tokens are leased at a time.
pub(super) const BLOCK: usize = 16;

/// Which places are free.
#[derive(Debug, Default)]
pub(super) struct Slots {
    free: BTreeSet<usize>,
    blocks: usize,
}

/// The places of one text, or of a prompt that several texts share.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    blocks: Vec<usize>,
    tokens: usize,
}

/// How many blocks so many tokens take.
pub(super) fn blocks(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK)
}

impl Slots {
    /// How many tokens there are places for, leased or not.
    pub(super) fn capacity(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Adds places for `tokens` more tokens to a lease, and says where they are. Grows by as much as is missing.
    pub(super) fn extend(&mut self, lease: &mut Lease, tokens: usize) -> Vec<usize> {
        let end = lease.tokens + tokens;
        while lease.blocks.len() < blocks(end) {
            let block = self.free.pop_first().unwrap_or_else(|| {
                self.blocks += 1;
                self.blocks - 1
            });
            lease.blocks.push(block);
        }
        let places = (lease.tokens..end).map(|token| lease.place(token)).collect();
        lease.tokens = end;
        places
    }

    /// Takes a lease's places back.
    pub(super) fn end(&mut self, lease: Lease) {
        self.free.extend(lease.blocks);
        // Free places at the end go, so that an idle generator holds nothing.
        while self.blocks > 0 && self.free.remove(&(self.blocks - 1)) {
            self.blocks -= 1;
        }
    }
}

impl Lease {
    /// How many tokens have places.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Where a token stands, of those that there are blocks for.
    pub(super) fn place(&self, token: usize) -> usize {
        self.blocks[token / BLOCK] * BLOCK + token % BLOCK
    }

    /// The places as few ranges, in the order of the text.
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let start = block * BLOCK;
            let end = start + BLOCK.min(self.tokens - index * BLOCK);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_reused_and_given_back() {
        let mut slots = Slots::default();
        let (mut first, mut second) = (Lease::default(), Lease::default());
        assert_eq!(slots.extend(&mut first, 2), [0, 1]);
        assert_eq!(slots.extend(&mut second, 1), [16]);
        assert_eq!(slots.extend(&mut first, 15), (2..16).chain([32]).collect::<Vec<_>>());
        assert_eq!(first.ranges(), [0..16, 32..33]);
        assert_eq!(second.ranges().first(), Some(&(16..17)));
        slots.end(second);
        assert_eq!(slots.capacity(), 48);
        let mut third = Lease::default();
        assert_eq!(slots.extend(&mut third, 1), [16]);
        slots.end(first);
        assert_eq!(slots.capacity(), 32);
        slots.end(third);
        assert_eq!(slots.capacity(), 0);
    }

    proptest! {
        #[test]
        fn no_two_leases_share_a_place(steps in prop::collection::vec((0..4_usize, 0..40_usize), 1..60)) {
            let mut slots = Slots::default();
            let mut leases: Vec<Lease> = (0..4).map(|_| Lease::default()).collect();
            for (index, tokens) in steps {
                if tokens == 0 {
                    slots.end(std::mem::take(&mut leases[index]));
                } else {
                    slots.extend(&mut leases[index], tokens);
                }
                let mut places: Vec<usize> = leases.iter().flat_map(Lease::ranges).flatten().collect();
                let all = places.len();
                prop_assert_eq!(all, leases.iter().map(Lease::tokens).sum::<usize>());
                places.sort_unstable();
                places.dedup();
                prop_assert_eq!(places.len(), all);
                prop_assert!(places.last().is_none_or(|last| *last < slots.capacity()));
            }
        }
    }
}
