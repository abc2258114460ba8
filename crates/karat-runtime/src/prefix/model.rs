//! What the executors of one decoder share, with those that write on it.

use std::{ops::Range, sync::Arc};

use super::{
    cache::{BLOCK, PrefixCache},
    cost::RowCost,
    singles::Singles,
};
use crate::{KeyValues, readout::Readout, telemetry::SharingMetrics};

/// What the executors of one decoder share.
#[derive(Debug)]
pub struct SharedModel {
    /// What is read of its texts.
    pub(crate) readout: Readout,
    /// Whether rows may hold several texts, and texts be cut: false for a graph whose numbers depend on what else is
    /// in the row.
    pub shares: bool,
    /// What rows cost.
    pub(crate) cost: RowCost,
    /// Where rows are computed side by side.
    pub(super) singles: Singles,
    /// What was computed before.
    pub(crate) cache: PrefixCache,
    /// Tells the model's keys and values from those of others.
    root: u64,
    /// What is counted.
    pub(crate) metrics: SharingMetrics,
}

impl SharedModel {
    /// A model of its own in `cache`.
    #[must_use]
    pub fn new(readout: Readout, shares: bool, cost: RowCost, cache: PrefixCache, metrics: SharingMetrics) -> Self {
        let root = cache.new_root();
        Self { readout, shares, cost, singles: Singles::default(), cache, root, metrics }
    }

    /// The same, whose rows are computed side by side where there are as many as `singles`.
    #[must_use]
    pub fn with_singles(mut self, singles: Singles) -> Self {
        self.singles = singles;
        self
    }

    /// The sessions on which rows are computed side by side.
    #[must_use]
    pub fn singles(&self) -> &Singles {
        &self.singles
    }

    /// Tells the model's keys and values from those of others.
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// What rows cost.
    #[must_use]
    pub fn cost(&self) -> &RowCost {
        &self.cost
    }

    /// The keys and values of the blocks that a text begins with, as far as they are known: whole blocks of [`BLOCK`] tokens,
    /// never the last token, which somebody wants to read something at.
    #[must_use]
    pub fn beginning(&self, ids: &[u32]) -> Vec<Arc<KeyValues>> {
        let at_most = if self.shares { ids.len().saturating_sub(1) } else { 0 };
        self.cache.find(self.root, ids, at_most).past.into_iter().map(|past| past.values).collect()
    }

    /// Keeps the whole blocks of a text that aren't known yet; `computed` gives the keys and values of a range of its
    /// tokens, as rows of this model compute them.
    pub fn keep(&self, ids: &[u32], mut computed: impl FnMut(Range<usize>) -> Option<KeyValues>) {
        let end = if self.shares { ids.len() / BLOCK * BLOCK } else { 0 };
        let known = self.cache.find(self.root, ids, end);
        let mut place = known.place;
        for start in (known.tokens..end).step_by(BLOCK) {
            let block = start..start + BLOCK;
            let Some(values) = computed(block.clone()) else { return };
            let Some(next) = self.cache.insert(self.root, place, &ids[block], Arc::new(values)) else { return };
            place = next;
        }
    }

    /// Drops what the cache holds of the model.
    pub fn forget(&self) {
        self.cache.forget(self.root);
    }
}

impl Drop for SharedModel {
    fn drop(&mut self) {
        self.forget();
    }
}
