//! Blocks of texts that are found again by their exact tokens.
//!
//! A block is kept under the block before it and its own tokens, so that finding it proves that every token up to its end
//! is the same: there is no hash that two texts could share. The least recently used go first, and of those a text's
//! last block before the ones it builds on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

/// Where a block stands: after nothing, in the texts of one graph, or after another block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Root(u64),
    After(u64),
}

/// What is kept of texts, block by block.
#[derive(Debug)]
pub(crate) struct Chain<V> {
    blocks: HashMap<Key, Block<V>>,
    /// Which blocks go first: the longest unused, and among those that were used together the last of the text.
    eviction_order: BTreeMap<(u64, Reverse<usize>, u64), Key>,
    /// The rank of every block: what a block after it needs to know.
    ranks: HashMap<u64, Rank>,
    /// Numbers roots, blocks and whatever else the owner tells apart.
    last_number: u64,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Place,
    tokens: Box<[u32]>,
}

#[derive(Debug)]
struct Block<V> {
    root: u64,
    number: u64,
    value: V,
}

/// How soon a block is evicted.
#[derive(Debug, Clone, Copy)]
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

impl<V> Default for Chain<V> {
    fn default() -> Self {
        Self {
            blocks: HashMap::new(),
            eviction_order: BTreeMap::new(),
            ranks: HashMap::new(),
            last_number: 0,
            clock: 0,
        }
    }
}

impl<V> Chain<V> {
    /// A number that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Begins a use: what is found from now on was used later than anything before.
    pub(crate) fn begin_use(&mut self) {
        self.clock += 1;
    }

    /// Finds a block and marks it as used; gives where the next would stand, and what is kept of it.
    pub(crate) fn find(&mut self, place: Place, tokens: &[u32]) -> Option<(Place, &V)> {
        let key = Key { place, tokens: tokens.into() };
        self.touch(key, self.clock)
    }

    /// Where the next block would stand after one that is kept, which isn't used by that.
    pub(crate) fn peek(&self, place: Place, tokens: &[u32]) -> Option<Place> {
        let block = self.blocks.get(&Key { place, tokens: tokens.into() })?;
        Some(Place::After(block.number))
    }

    /// Keeps a block of a text of `root` after `place`; gives where the next one would stand, and `value` back where such
    /// a block is kept already. `None` when the block before it is gone: its turn may have come meanwhile.
    pub(crate) fn insert(&mut self, root: u64, place: Place, tokens: &[u32], value: V) -> Option<(Place, Option<V>)> {
        let key = Key { place, tokens: tokens.into() };
        let rank = match place {
            Place::Root(_) => Rank { depth: 0, used: self.clock },
            Place::After(number) => {
                let before = self.ranks.get(&number)?;
                Rank { depth: before.depth + 1, ..*before }
            }
        };
        if let Some((next, _)) = self.touch(key.clone(), rank.used) {
            return Some((next, Some(value)));
        }
        let number = self.number();
        self.ranks.insert(number, rank);
        self.eviction_order.insert(rank.eviction_key(number), key.clone());
        self.blocks.insert(key, Block { root, number, value });
        Some((Place::After(number), None))
    }

    /// Whether the block that ends at `place` is still kept.
    pub(crate) fn holds(&self, place: Place) -> bool {
        match place {
            Place::Root(_) => true,
            Place::After(number) => self.ranks.contains_key(&number),
        }
    }

    /// Drops the block that goes first of those that `may_go`. One that is held back while the block before it goes is
    /// found no more, and goes when it may.
    pub(crate) fn evict(&mut self, may_go: impl Fn(&V) -> bool) -> Option<V> {
        let goes = |key: &&Key| self.blocks.get(*key).is_some_and(|block| may_go(&block.value));
        let key = self.eviction_order.values().find(goes)?.clone();
        let block = self.blocks.remove(&key)?;
        if let Some(rank) = self.ranks.remove(&block.number) {
            self.eviction_order.remove(&rank.eviction_key(block.number));
        }
        Some(block.value)
    }

    /// Drops every block of a graph, and hands over what was kept of each.
    pub(crate) fn forget(&mut self, root: u64, mut dropped: impl FnMut(V)) {
        let Self { blocks, eviction_order, ranks, .. } = self;
        for (_, block) in blocks.extract_if(|_, block| block.root == root) {
            if let Some(rank) = ranks.remove(&block.number) {
                eviction_order.remove(&rank.eviction_key(block.number));
            }
            dropped(block.value);
        }
    }

    /// Finds a block and marks it as used at `now`.
    fn touch(&mut self, key: Key, now: u64) -> Option<(Place, &V)> {
        let block = self.blocks.get(&key)?;
        let rank = self.ranks.get_mut(&block.number)?;
        self.eviction_order.remove(&rank.eviction_key(block.number));
        rank.used = now;
        self.eviction_order.insert(rank.eviction_key(block.number), key);
        Some((Place::After(block.number), &block.value))
    }
}
