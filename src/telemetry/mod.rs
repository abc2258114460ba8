//! What a running server tells its operators: metrics, logs, and which build it is.
//!
//! A leaf: every layer may use it, it uses none but the vocabulary. All metrics live in one [`Metrics`] with a registry of its own, so
//! that two servers in one process (as in tests) never mix their figures. Names are `karat_<noun>_<unit>[_total]` in
//! base units; every label has a small closed set of values.

mod build;
mod http;
mod logging;
mod metrics;
mod model;
mod prefix;

pub use build::Build;
pub use http::{RequestGuard, WaitGuard};
pub use logging::{LogFormat, LoggingError, start_logging};
pub use metrics::Metrics;
pub use model::{ModelMetrics, PassGuard, PrefixCounts};
pub use prefix::PrefixCacheMetrics;
