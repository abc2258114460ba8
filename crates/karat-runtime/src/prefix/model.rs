//! What the executors of one decoder share.

use super::{cache::PrefixCache, cost::RowCost};
use crate::{readout::Readout, telemetry::SharingMetrics};

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
        Self { readout, shares, cost, cache, root, metrics }
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
