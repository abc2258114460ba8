//! The keys and values along the way from a tree's root to a node, and which of them go into the cache.

use std::{ops::Range, sync::Arc};

use super::cache::{BLOCK, CachedPrefix, Claimant, PrefixCache, PrefixHash};
use crate::{DecoderShape, KeyValues, Past, chain::Place};

/// What is computed of the texts that go through a node.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// The keys and values of every token so far.
    pub(super) past: Vec<Past>,
    /// Where the next block would stand in the cache; `None` once one found no room or wasn't worth it.
    place: Option<Place>,
    hash: PrefixHash,
    root: u64,
    /// What was computed since the last whole block.
    loose: Vec<Past>,
}

impl Path {
    pub(super) fn start(root: &CachedPrefix) -> Self {
        Self { past: root.past.clone(), place: Some(root.place), hash: root.hash, root: root.root, loose: Vec::new() }
    }

    /// Whether what is computed next may go into the cache.
    pub(super) fn is_cachable(&self) -> bool {
        self.place.is_some()
    }

    /// Goes on with tokens up to `end`, which were computed in one fragment; `ids` are those of the text. Keeps the
    /// block that ends there, if one does and it ends at `lasting` at the latest.
    pub(super) fn extend(
        &mut self,
        store: &Store<'_>,
        ids: &[u32],
        end: usize,
        lasting: usize,
        values: Arc<KeyValues>,
    ) {
        let fragment = Past::all(values);
        self.past.push(fragment.clone());
        let Some(place) = self.place else { return };
        self.loose.push(fragment);
        if !end.is_multiple_of(BLOCK) {
            return;
        }
        let tokens = &ids[end - BLOCK..end];
        let values = match self.loose.as_slice() {
            [only] => Some(Arc::clone(&only.values)),
            several => KeyValues::join(store.shape, several).map(Arc::new),
        };
        self.loose.clear();
        self.hash = self.hash.extended(tokens);
        self.place =
            values.filter(|_| end <= lasting).and_then(|values| store.cache.insert(self.root, place, tokens, values));
        store.claimant.release(self.hash);
    }
}

/// Where blocks are kept.
pub(super) struct Store<'a> {
    pub(super) cache: &'a PrefixCache,
    pub(super) claimant: &'a Claimant,
    pub(super) shape: &'a DecoderShape,
}

/// Cuts positions so that every whole block is a fragment of its own.
pub(super) fn fragments(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = ((start / BLOCK + 1) * BLOCK).min(range.end);
        let fragment = start..end;
        start = end;
        (!fragment.is_empty()).then_some(fragment)
    })
}
