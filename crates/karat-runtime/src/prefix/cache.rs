//! Keys and values of beginnings that were computed before, bounded in bytes.
//!
//! A text is cut into blocks of [`BLOCK`] tokens. A block is kept under the block before it and its own exact tokens, so
//! that finding it proves that every token up to its end is the same: there is no hash that two texts could share.
//! Blocks are immutable; the least recently used go first, and of those a text's last block before the ones it builds
//! on. What one worker computes, another waits for (single flight).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{Cancellation, KeyValues, Past, telemetry::PrefixCacheMetrics};

/// How many tokens a block has: what is shared with later requests ends at a multiple of this.
pub const BLOCK: usize = 16;

/// What a block weighs beside its keys and values.
const OVERHEAD: usize = 512;

/// Where a block stands: after nothing, in the texts of one graph, or after another block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Root(u64),
    After(u64),
}

/// The blocks of all graphs of a process. Clones share them.
#[derive(Clone)]
pub struct PrefixCache {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: usize,
    state: Mutex<State>,
    /// Signalled when a claim ends.
    claim_ended: Condvar,
    metrics: PrefixCacheMetrics,
}

#[derive(Default)]
struct State {
    blocks: HashMap<Key, Block>,
    /// Which blocks go first: the longest unused, and among those that were used together the last of the text.
    eviction_order: BTreeMap<(u64, Reverse<usize>, u64), Key>,
    /// The rank of every block: what a block after it needs to know.
    ranks: HashMap<u64, Rank>,
    bytes: usize,
    /// Numbers roots, blocks and workers.
    last_number: u64,
    /// Counts uses.
    clock: u64,
    /// Which blocks are being computed, by their [`PrefixHash`], and by which worker.
    claims: HashMap<PrefixHash, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Place,
    tokens: Box<[u32]>,
}

/// How soon a block is evicted.
#[derive(Clone, Copy)]
struct Rank {
    /// How many blocks of the text stand before it.
    depth: usize,
    /// When it was last used. Never later than the block before was used, which must not go first: nobody could find
    /// this one any more.
    used: u64,
}

impl Rank {
    /// What sorts lowest is evicted first.
    fn eviction_key(self, number: u64) -> (u64, Reverse<usize>, u64) {
        (self.used, Reverse(self.depth), number)
    }
}

struct Block {
    root: u64,
    number: u64,
    values: Arc<KeyValues>,
}

/// Names a block that isn't there yet, by a hash over everything up to its end. Two blocks that share one would only
/// wait for each other without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PrefixHash(u64);

impl PrefixHash {
    pub(super) fn start(root: u64) -> Self {
        Self(root)
    }

    /// The hash after another block.
    pub(super) fn extended(self, tokens: &[u32]) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.0, tokens).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The blocks that a text begins with.
#[derive(Debug, Clone)]
pub(super) struct CachedPrefix {
    pub(super) root: u64,
    pub(super) past: Vec<Past>,
    pub(super) place: Place,
    pub(super) hash: PrefixHash,
    /// How many tokens they are.
    pub(super) tokens: usize,
}

impl PrefixCache {
    /// A cache of at most `bytes`; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes: u64, metrics: PrefixCacheMetrics) -> Self {
        let capacity = usize::try_from(bytes).unwrap_or(usize::MAX);
        let shared = Shared { capacity, state: Mutex::default(), claim_ended: Condvar::new(), metrics };
        Self { shared: Arc::new(shared) }
    }

    /// The memory that blocks take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A number for a graph that no other graph of this cache has: a reloaded model never gets the old one's keys.
    pub(super) fn new_root(&self) -> u64 {
        self.lock().number()
    }

    /// The blocks that `ids` begin with, over at most `at_most` tokens.
    pub(super) fn find(&self, root: u64, ids: &[u32], at_most: usize) -> CachedPrefix {
        self.lock().find(root, &ids[..at_most.min(ids.len())])
    }

    /// Keeps a block of a text of `root` after `place`; gives where the next one would stand, or `None` when there is no room.
    pub(super) fn insert(&self, root: u64, place: Place, tokens: &[u32], values: Arc<KeyValues>) -> Option<Place> {
        let key = Key { place, tokens: tokens.into() };
        let mut state = self.lock();
        let rank = match place {
            Place::Root(_) => Rank { depth: 0, used: state.clock },
            // Its turn to go may have come while this block was computed.
            Place::After(number) => {
                let before = state.ranks.get(&number)?;
                Rank { depth: before.depth + 1, ..*before }
            }
        };
        if let Some((number, _)) = state.touch(key.clone(), rank.used) {
            return Some(Place::After(number));
        }
        let bytes = values.bytes() + OVERHEAD;
        let number = state.number();
        state.bytes += bytes;
        state.ranks.insert(number, rank);
        state.eviction_order.insert(rank.eviction_key(number), key.clone());
        state.blocks.insert(key, Block { root, number, values });
        let evicted = state.shrink(self.shared.capacity);
        self.shared.metrics.changed(state.bytes, evicted);
        state.ranks.contains_key(&number).then_some(Place::After(number))
    }

    /// Drops every block of a graph.
    pub(super) fn forget(&self, root: u64) {
        let mut state = self.lock();
        let State { blocks, eviction_order, ranks, bytes, .. } = &mut *state;
        blocks.retain(|_, block| {
            let stays = block.root != root;
            if !stays {
                if let Some(rank) = ranks.remove(&block.number) {
                    eviction_order.remove(&rank.eviction_key(block.number));
                }
                *bytes -= block.values.bytes() + OVERHEAD;
            }
            stays
        });
        self.shared.metrics.changed(state.bytes, 0);
    }

    /// Someone who computes blocks that others may wait for.
    pub(super) fn claimant(&self) -> Claimant {
        Claimant { cache: self.clone(), number: self.lock().number() }
    }

    /// Blocks until nobody computes the block any more, or `cancel` is used.
    pub(super) fn wait(&self, hash: PrefixHash, cancel: &Cancellation) {
        let _registration = cancel.on_cancel({
            let cache = self.clone();
            move || {
                // Taken so that the notice can't fall between the waiter's check and its sleep.
                drop(cache.lock());
                cache.shared.claim_ended.notify_all();
            }
        });
        let mut state = self.lock();
        while state.claims.contains_key(&hash) && !cancel.is_cancelled() {
            state = self.shared.claim_ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PrefixCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The blocks that `ids` begin with.
    fn find(&mut self, root: u64, ids: &[u32]) -> CachedPrefix {
        let mut found =
            CachedPrefix { root, past: Vec::new(), place: Place::Root(root), hash: PrefixHash::start(root), tokens: 0 };
        self.clock += 1;
        let now = self.clock;
        let (blocks, _) = ids.as_chunks::<BLOCK>();
        for tokens in blocks {
            let key = Key { place: found.place, tokens: tokens.as_slice().into() };
            let Some((number, values)) = self.touch(key, now) else { break };
            found.past.push(Past::all(values));
            found.place = Place::After(number);
            found.hash = found.hash.extended(tokens);
            found.tokens += BLOCK;
        }
        found
    }

    /// Finds a block and marks it as used at `now`.
    fn touch(&mut self, key: Key, now: u64) -> Option<(u64, Arc<KeyValues>)> {
        let Block { number, values, .. } = self.blocks.get(&key)?;
        let (number, values) = (*number, Arc::clone(values));
        let rank = self.ranks.get_mut(&number)?;
        self.eviction_order.remove(&rank.eviction_key(number));
        rank.used = now;
        self.eviction_order.insert(rank.eviction_key(number), key);
        Some((number, values))
    }

    /// Drops blocks until they fit; gives how many.
    fn shrink(&mut self, capacity: usize) -> usize {
        let mut dropped = 0;
        while self.bytes > capacity {
            let Some((_, key)) = self.eviction_order.pop_first() else { break };
            if let Some(block) = self.blocks.remove(&key) {
                self.ranks.remove(&block.number);
                self.bytes -= block.values.bytes() + OVERHEAD;
                dropped += 1;
            }
        }
        dropped
    }
}

/// A worker's claims to blocks that it is about to compute. They end with it, whether it computed them or not.
pub(super) struct Claimant {
    cache: PrefixCache,
    number: u64,
}

impl Claimant {
    /// The blocks that `ids` begin with, over at most `sharable` tokens, and a claim to the whole blocks behind them up
    /// to `lasting`.
    ///
    /// In one step: between a look and a claim another worker could finish the blocks that were missing.
    ///
    /// # Errors
    /// The hash of the first missing block, when another worker computes it.
    pub(super) fn find_or_claim(
        &self,
        root: u64,
        ids: &[u32],
        sharable: usize,
        lasting: usize,
    ) -> Result<CachedPrefix, PrefixHash> {
        let mut state = self.cache.lock();
        let found = state.find(root, &ids[..sharable.min(ids.len())]);
        let end = lasting.min(sharable) / BLOCK * BLOCK;
        let missing = ids.get(found.tokens..end).unwrap_or_default();
        let mut hash = found.hash;
        for (number, tokens) in missing.chunks_exact(BLOCK).enumerate() {
            hash = hash.extended(tokens);
            let owner = *state.claims.entry(hash).or_insert(self.number);
            if number == 0 && owner != self.number {
                return Err(hash);
            }
        }
        Ok(found)
    }

    /// Ends the claim to a block that has been computed.
    pub(super) fn release(&self, hash: PrefixHash) {
        let mut state = self.cache.lock();
        if state.claims.get(&hash) == Some(&self.number) {
            state.claims.remove(&hash);
            self.cache.shared.claim_ended.notify_all();
        }
    }
}

impl Drop for Claimant {
    fn drop(&mut self) {
        self.cache.lock().claims.retain(|_, owner| *owner != self.number);
        self.cache.shared.claim_ended.notify_all();
    }
}

#[cfg(test)]
mod tests;
