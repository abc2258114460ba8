//! What the engine counts: queues, passes, caches and texts, by model.

mod model;
#[cfg(test)]
pub(crate) mod testing;

use karat_rules::domain::ModelName;
use karat_runtime::{metrics, telemetry::PrefixMetrics};
use prometheus::{Error, IntGauge, Registry};

pub use model::ModelMetrics;

use model::ModelFamilies;

/// All metrics of one engine. Clones share them.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    models: ModelFamilies,
    caches: CacheMetrics,
    prefixes: PrefixMetrics,
}

metrics! {
    /// What is remembered of earlier requests.
    struct CacheMetrics {
        bytes: IntGauge = "karat_cache_bytes", "Memory that known scores and tokens take";
    }
}

impl EngineMetrics {
    /// Creates every metric and registers it.
    ///
    /// # Errors
    /// When `registry` holds a metric of the same name already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            models: ModelFamilies::register(registry)?,
            caches: CacheMetrics::register(registry)?,
            prefixes: PrefixMetrics::register(registry)?,
        })
    }

    /// The metrics of one model, every label resolved, so that recording looks nothing up; those of sharing begin at zero.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> ModelMetrics {
        // A model that shares nothing counts zero, where a figure that is missing could mean anything.
        let _ = (self.prefixes.model(name), self.prefixes.packed(name));
        self.models.of(name.as_str())
    }

    /// The metrics of models that share prefixes.
    #[must_use]
    pub fn prefixes(&self) -> &PrefixMetrics {
        &self.prefixes
    }

    /// States how much memory the caches of all models take.
    pub fn cache_bytes(&self, bytes: u64) {
        self.caches.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
