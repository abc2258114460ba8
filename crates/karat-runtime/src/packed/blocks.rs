//! Which blocks of a session's caches are taken, and which hold the beginnings of texts that were computed before.
//!
//! The blocks are allocated once. A text leases those that its tokens stand in; several texts may lease the same ones. A
//! block goes back when the last lease on it ends, however it ends, unless it is kept for later texts: those give way to
//! new texts, the least recently used first, and never while anyone leases them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BLOCK_TOKENS;
use crate::{
    chain::{Chain, Place},
    telemetry::{BlockCounts, PackedMetrics},
};

/// The one graph whose texts a session's blocks hold.
const ROOT: u64 = 0;

/// The blocks of one session. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// How many leases each block is part of.
    leases: Vec<usize>,
    /// Which blocks are kept for later texts.
    kept: Vec<bool>,
    /// Those that are neither leased nor kept.
    free: Vec<u32>,
    /// How many are not leased, kept or not.
    idle: usize,
    known: Chain<u32>,
    metrics: PackedMetrics,
    /// What the metrics were told.
    told: BlockCounts,
}

/// The blocks of a text's first tokens, in order, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lease {
    state: Arc<Mutex<State>>,
    blocks: Vec<u32>,
}

impl Blocks {
    /// So many blocks, all of them free.
    pub(super) fn new(count: usize, metrics: PackedMetrics) -> Self {
        let free: Vec<u32> = (0..u32::try_from(count).unwrap_or(u32::MAX)).rev().collect();
        let count = free.len();
        let (leases, kept, known) = (vec![0; count], vec![false; count], Chain::default());
        let mut state = State { leases, kept, free, idle: count, known, metrics, told: BlockCounts::default() };
        state.tell();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many blocks new leases can have: those that are free, and those that are kept and leased by nobody.
    pub(super) fn room(&self) -> usize {
        lock(&self.state).idle
    }

    /// The kept blocks that `ids` begin with.
    pub(super) fn find(&self, ids: &[u32]) -> Lease {
        let mut state = lock(&self.state);
        state.known.begin_use();
        let (mut place, mut blocks) = (Place::Root(ROOT), Vec::new());
        for tokens in ids.as_chunks::<BLOCK_TOKENS>().0 {
            let Some((next, block)) = state.known.find(place, tokens) else { break };
            blocks.push(*block);
            place = next;
        }
        state.lease(&blocks);
        state.tell();
        drop(state);
        Lease { state: Arc::clone(&self.state), blocks }
    }

    /// How many blocks of `ids` are kept, without a claim to them.
    pub(super) fn known(&self, ids: &[u32]) -> usize {
        let state = lock(&self.state);
        let mut place = Place::Root(ROOT);
        let whole = ids.as_chunks::<BLOCK_TOKENS>().0.iter();
        whole
            .map_while(|tokens| {
                place = state.known.peek(place, tokens)?;
                Some(place)
            })
            .count()
    }

    /// Keeps the blocks of a lease that `ids` fill for later texts. They must have been computed.
    pub(super) fn keep(&self, lease: &Lease, ids: &[u32]) {
        let mut state = lock(&self.state);
        let mut place = Place::Root(ROOT);
        for (tokens, block) in ids.as_chunks::<BLOCK_TOKENS>().0.iter().zip(&lease.blocks) {
            let Some((next, known)) = state.known.insert(ROOT, place, tokens, *block) else { return };
            if known.is_none() {
                state.kept[*block as usize] = true;
            }
            place = next;
        }
    }
}

impl Lease {
    /// The blocks, in the order of the tokens.
    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Adds blocks that nobody else has; false, and nothing added, when there are not so many.
    pub(super) fn extend(&mut self, count: usize) -> bool {
        let mut state = lock(&self.state);
        if state.idle < count {
            return false;
        }
        for _ in 0..count {
            let State { free, known, leases, kept, metrics, .. } = &mut *state;
            let found = free.pop().or_else(|| {
                let evicted = known.evict(|block| leases[*block as usize] == 0)?;
                kept[evicted as usize] = false;
                metrics.evicted();
                Some(evicted)
            });
            // Every block that is idle is free or kept.
            let Some(block) = found else { return false };
            state.lease(&[block]);
            self.blocks.push(block);
        }
        state.tell();
        true
    }

    /// A lease of the first of its blocks.
    pub(super) fn first(&self, count: usize) -> Self {
        let blocks = self.blocks[..count].to_vec();
        lock(&self.state).lease(&blocks);
        Self { state: Arc::clone(&self.state), blocks }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        for block in &self.blocks {
            let at = *block as usize;
            state.leases[at] -= 1;
            if state.leases[at] == 0 {
                state.idle += 1;
                if !state.kept[at] {
                    state.free.push(*block);
                }
            }
        }
        state.tell();
    }
}

impl State {
    fn lease(&mut self, blocks: &[u32]) {
        for block in blocks {
            let leases = &mut self.leases[*block as usize];
            self.idle -= usize::from(*leases == 0);
            *leases += 1;
        }
    }

    /// Tells the metrics how the blocks are used.
    fn tell(&mut self) {
        let free = self.free.len();
        self.told_as(BlockCounts { used: self.leases.len() - self.idle, kept: self.idle - free, free });
    }

    fn told_as(&mut self, now: BlockCounts) {
        self.metrics.blocks(self.told, now);
        self.told = now;
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.told_as(BlockCounts::default());
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn blocks_of(count: usize) -> Blocks {
        Blocks::new(count, PackedMetrics::unread().unwrap())
    }

    fn text(letters: &[u32]) -> Vec<u32> {
        letters.iter().flat_map(|letter| [*letter; BLOCK_TOKENS]).collect()
    }

    /// Leases what a text takes and keeps it; the blocks that it had to have new.
    fn compute(blocks: &Blocks, ids: &[u32]) -> Option<(Lease, Vec<u32>)> {
        let mut lease = blocks.find(ids);
        let known = lease.blocks().len();
        lease.extend(ids.len().div_ceil(BLOCK_TOKENS) - known).then(|| {
            blocks.keep(&lease, ids);
            let new = lease.blocks()[known..].to_vec();
            (lease, new)
        })
    }

    #[test]
    fn a_beginning_is_found_by_its_exact_tokens() {
        let blocks = blocks_of(8);
        let (lease, new) = compute(&blocks, &text(&[1, 2, 3])).unwrap();
        assert_eq!((new.len(), blocks.room()), (3, 5));
        drop(lease);
        assert_eq!(blocks.room(), 8);
        for (ids, known) in [
            (text(&[1, 2, 3]), 3),
            (text(&[1, 2, 4]), 2),
            (text(&[2, 3]), 0),
            (text(&[1, 2])[..2 * BLOCK_TOKENS - 1].to_vec(), 1),
        ] {
            assert_eq!(blocks.find(&ids).blocks(), &new[..known]);
        }
        let mut odd = text(&[1]);
        odd[7] = 9;
        assert!(blocks.find(&odd).blocks().is_empty());
    }

    #[test]
    fn what_is_kept_gives_way_and_what_is_leased_does_not() {
        let blocks = blocks_of(4);
        drop(compute(&blocks, &text(&[1, 2])));
        drop(compute(&blocks, &text(&[5])));
        let leased = blocks.find(&text(&[1]));
        let (_new, _) = compute(&blocks, &text(&[7, 8])).unwrap();
        assert_eq!(
            leased.blocks(),
            blocks.find(&text(&[1, 2])).blocks(),
            "the end of the oldest went, not its beginning"
        );
        assert_eq!(blocks.find(&text(&[5])).blocks().len(), 1);
        assert!(compute(&blocks, &text(&[9, 9])).is_none(), "one block is left that nobody leases");
        assert_eq!(blocks.room(), 1);
    }

    #[test]
    fn a_lease_that_can_not_grow_is_as_it_was() {
        let blocks = blocks_of(2);
        let mut lease = blocks.find(&[]);
        assert!(!lease.extend(3));
        assert_eq!((lease.blocks().len(), blocks.room()), (0, 2));
    }

    /// A step of a random schedule.
    #[derive(Debug, Clone)]
    enum Step {
        /// Computed, though perhaps only so many of the first blocks may come from earlier texts.
        Compute(Vec<u32>, usize),
        /// Computed, but failed: nothing of it is kept.
        Fail(Vec<u32>, usize),
        /// Leases the first blocks of a lease that lives.
        Share(prop::sample::Index, usize),
        End(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let letters = || vec(0..3_u32, 0..5);
        prop_oneof![
            (letters(), 0..6_usize).prop_map(|(letters, known)| Step::Compute(letters, known)),
            (letters(), 0..6_usize).prop_map(|(letters, known)| Step::Fail(letters, known)),
            (any::<prop::sample::Index>(), 0..5_usize).prop_map(|(which, count)| Step::Share(which, count)),
            any::<prop::sample::Index>().prop_map(Step::End),
        ]
    }

    proptest! {
        #[test]
        fn no_block_is_freed_in_use_none_leaks_and_each_holds_its_own_text(
            count in 1..8_usize, steps in vec(step(), 1..60),
        ) {
            let blocks = blocks_of(count);
            // What was written into each block: everything up to its end. And the leases, with their texts.
            let mut written: HashMap<u32, Vec<u32>> = HashMap::new();
            let mut leases: Vec<(Lease, Vec<u32>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Compute(ref letters, known) | Step::Fail(ref letters, known) => {
                        let ids = text(letters);
                        let mut lease = blocks.find(&ids[..ids.len().min(known * BLOCK_TOKENS)]);
                        let known = lease.blocks().len();
                        if lease.extend(letters.len() - known) {
                            for (at, block) in lease.blocks().iter().enumerate().skip(known) {
                                written.insert(*block, letters[..=at].to_vec());
                            }
                            if matches!(step, Step::Compute(..)) {
                                blocks.keep(&lease, &ids);
                                leases.push((lease, letters.clone()));
                            }
                        } else {
                            prop_assert!(letters.len() - known > blocks.room());
                        }
                    }
                    Step::Share(which, count) if !leases.is_empty() => {
                        let (lease, letters) = which.get(&leases);
                        let count = count.min(lease.blocks().len());
                        let shared = (lease.first(count), letters[..count].to_vec());
                        leases.push(shared);
                    }
                    Step::End(which) if !leases.is_empty() => drop(leases.swap_remove(which.index(leases.len()))),
                    Step::Share(..) | Step::End(_) => {}
                }
                // Whoever holds a lease finds in its blocks what was computed of its own text.
                for (lease, letters) in &leases {
                    for (at, block) in lease.blocks().iter().enumerate() {
                        prop_assert_eq!(&written[block], &letters[..=at]);
                    }
                }
                let leased: HashSet<u32> = leases.iter().flat_map(|(lease, _)| lease.blocks().to_vec()).collect();
                prop_assert_eq!(blocks.room(), count - leased.len());
                let told = lock(&blocks.state).told;
                prop_assert_eq!((told.used, told.used + told.kept + told.free), (leased.len(), count));
                let ids = text(&[0, 1, 2]);
                prop_assert_eq!(blocks.known(&ids), blocks.find(&ids).blocks().len());
            }
            leases.clear();
            prop_assert_eq!(blocks.room(), count);
            let mut all = blocks.find(&[]);
            prop_assert!(all.extend(count), "every block can be had again");
            prop_assert_eq!(all.blocks().iter().collect::<HashSet<_>>().len(), count);
        }
    }
}
