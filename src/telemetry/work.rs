//! What the engine did for a request, as logs and traces tell of it: never a word of what was scored.

use std::{sync::Arc, time::Instant};

use karat_engine::{engine::Timings, schedule::PassRecord};
use karat_rules::domain::{ModelName, ModelVersion};

/// One call of the engine.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "traces"), expect(dead_code, reason = "only traces tell of when things happened"))]
pub(crate) struct Work {
    /// The model.
    pub(crate) model: ModelName,
    /// Exactly which one.
    pub(crate) version: ModelVersion,
    /// How many tokens it took.
    pub(crate) tokens: usize,
    /// When it began.
    pub(crate) begun: Instant,
    /// How long its stages took.
    pub(crate) timings: Timings,
    /// The forward passes that it waited for.
    pub(crate) passes: Vec<Arc<PassRecord>>,
}
