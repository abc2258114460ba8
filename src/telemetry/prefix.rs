//! The metrics of the cache of prefixes, which all models share.

use prometheus::{IntCounter, IntGauge};

/// How large the cache of prefixes is, and how often it was too small. Clones share the figures.
#[derive(Debug, Clone)]
pub struct PrefixCacheMetrics {
    pub(super) bytes: IntGauge,
    pub(super) evicted_blocks: IntCounter,
}

impl PrefixCacheMetrics {
    /// The cache takes so many bytes now, after it dropped so many blocks.
    pub fn changed(&self, bytes: usize, evicted: usize) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.evicted_blocks.inc_by(evicted as u64);
    }
}
