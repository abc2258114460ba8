//! What sharing prefixes saves, and the cache that all models share for it.

use karat_rules::domain::ModelName;
use prometheus::{Error, IntCounter, IntGauge, Registry};

use super::packed::{PackedFamilies, PackedMetrics};
use crate::metrics;

/// The metrics of everything that shares prefixes.
#[derive(Debug, Clone)]
pub struct PrefixMetrics {
    cache: PrefixCacheMetrics,
    sharing: SharingFamilies,
    packed: PackedFamilies,
}

impl PrefixMetrics {
    /// Creates every metric and registers it.
    ///
    /// # Errors
    /// When `registry` holds a metric of the same name already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            cache: PrefixCacheMetrics::register(registry)?,
            sharing: SharingFamilies::register(registry)?,
            packed: PackedFamilies::register(registry)?,
        })
    }

    /// The metrics of the cache of prefixes.
    #[must_use]
    pub fn cache(&self) -> PrefixCacheMetrics {
        self.cache.clone()
    }

    /// One model's share.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> SharingMetrics {
        self.sharing.of(name.as_str())
    }

    /// One model's passes and blocks of packed rows.
    #[must_use]
    pub fn packed(&self, name: &ModelName) -> PackedMetrics {
        self.packed.of(name.as_str())
    }
}

metrics! {
    /// How large the cache of prefixes is, and how often it was too small.
    pub struct PrefixCacheMetrics {
        bytes: IntGauge = "karat_prefix_cache_bytes", "Memory that keys and values of prefixes take";
        evicted_blocks: IntCounter =
            "karat_prefix_cache_evicted_blocks_total", "Blocks of prefixes dropped to make room for others";
    }
}

metrics! {
    /// What one model saves by computing once what samples begin with.
    pub struct SharingMetrics of SharingFamilies by "model" {
        tokens: IntCounter = "karat_prefix_tokens_total",
            "Tokens of samples of models that share prefixes, as if each were computed alone";
        computed: IntCounter = "karat_prefix_computed_tokens_total", "Tokens of them that were computed";
        cached: IntCounter =
            "karat_prefix_cached_tokens_total", "Tokens of them whose keys and values were in the cache of prefixes";
        hits: IntCounter = "karat_prefix_hits_total", "Samples whose beginning was in the cache of prefixes";
    }
}

/// What was saved of a batch whose samples share what they begin with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PrefixCounts {
    /// The samples' tokens.
    pub(crate) tokens: usize,
    /// Those that were computed.
    pub(crate) computed: usize,
    /// Those that the cache of prefixes held.
    pub(crate) cached: usize,
    /// The samples that it held a beginning of.
    pub(crate) hits: usize,
}

impl SharingMetrics {
    /// Counters that nobody reads, for passes that try a model before it takes requests.
    ///
    /// # Errors
    /// None: nothing else is in their registry.
    pub fn unread() -> Result<Self, Error> {
        Ok(SharingFamilies::register(&Registry::new())?.of("trial"))
    }

    /// A batch was computed that shares what its samples begin with.
    pub(crate) fn shared(&self, counts: PrefixCounts) {
        self.tokens.inc_by(counts.tokens as u64);
        self.computed.inc_by(counts.computed as u64);
        self.cached.inc_by(counts.cached as u64);
        self.hits.inc_by(counts.hits as u64);
    }
}

impl PrefixCacheMetrics {
    /// The cache takes so many bytes now, after it dropped so many blocks.
    pub(crate) fn changed(&self, bytes: usize, evicted: usize) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.evicted_blocks.inc_by(evicted as u64);
    }
}
