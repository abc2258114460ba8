//! What tests read of the metrics of one model, `m`.

use prometheus::{Registry, TextEncoder};

use super::{EngineMetrics, ModelMetrics};

/// The metrics of the model `m`, and where they can be read.
pub(crate) struct Recorded {
    registry: Registry,
    pub(crate) model: ModelMetrics,
}

impl Recorded {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let model = EngineMetrics::register(&registry).unwrap().model(&"m".parse().unwrap());
        Self { registry, model }
    }

    /// Everything in Prometheus's text format.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    /// Whether the text has exactly that line.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.text().lines().any(|found| found == line)
    }
}
