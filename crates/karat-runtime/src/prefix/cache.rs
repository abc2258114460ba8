//! Keys and values of beginnings that were computed before, bounded in bytes.
//!
//! A text is cut into blocks of [`BLOCK`] tokens, which a [`Chain`] finds again. Blocks are immutable. What one worker
//! computes, another waits for (single flight).

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Cancellation, KeyValues, Past,
    chain::{Chain, Place},
    telemetry::PrefixCacheMetrics,
};

/// How many tokens a block has: what is shared with later requests ends at a multiple of this.
pub const BLOCK: usize = 16;

/// What a block weighs beside its keys and values.
const OVERHEAD: usize = 512;

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
    chain: Chain<Arc<KeyValues>>,
    bytes: usize,
    /// Which blocks are being computed, by their [`PrefixHash`], and by which worker.
    claims: HashMap<PrefixHash, u64>,
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
        self.lock().chain.number()
    }

    /// The blocks that `ids` begin with, over at most `at_most` tokens.
    pub(super) fn find(&self, root: u64, ids: &[u32], at_most: usize) -> CachedPrefix {
        self.lock().find(root, &ids[..at_most.min(ids.len())])
    }

    /// Keeps a block of a text of `root` after `place`; gives where the next one would stand, or `None` when there is no room.
    pub(super) fn insert(&self, root: u64, place: Place, tokens: &[u32], values: Arc<KeyValues>) -> Option<Place> {
        let mut state = self.lock();
        let bytes = values.bytes() + OVERHEAD;
        let (next, known) = state.chain.insert(root, place, tokens, values)?;
        if known.is_some() {
            return Some(next);
        }
        state.bytes += bytes;
        let evicted = state.shrink(self.shared.capacity);
        self.shared.metrics.changed(state.bytes, evicted);
        state.chain.holds(next).then_some(next)
    }

    /// Drops every block of a graph.
    pub(super) fn forget(&self, root: u64) {
        let mut state = self.lock();
        let State { chain, bytes, .. } = &mut *state;
        chain.forget(root, |values| *bytes -= values.bytes() + OVERHEAD);
        self.shared.metrics.changed(state.bytes, 0);
    }

    /// Someone who computes blocks that others may wait for.
    pub(super) fn claimant(&self) -> Claimant {
        Claimant { cache: self.clone(), number: self.lock().chain.number() }
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
    /// The blocks that `ids` begin with.
    fn find(&mut self, root: u64, ids: &[u32]) -> CachedPrefix {
        let mut found =
            CachedPrefix { root, past: Vec::new(), place: Place::Root(root), hash: PrefixHash::start(root), tokens: 0 };
        self.chain.begin_use();
        let (blocks, _) = ids.as_chunks::<BLOCK>();
        for tokens in blocks {
            let Some((next, values)) = self.chain.find(found.place, tokens) else { break };
            found.past.push(Past::all(Arc::clone(values)));
            found.place = next;
            found.hash = found.hash.extended(tokens);
            found.tokens += BLOCK;
        }
        found
    }

    /// Drops blocks until they fit; gives how many.
    fn shrink(&mut self, capacity: usize) -> usize {
        let mut dropped = 0;
        while self.bytes > capacity {
            let Some(values) = self.chain.evict(|_| true) else { break };
            self.bytes -= values.bytes() + OVERHEAD;
            dropped += 1;
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
