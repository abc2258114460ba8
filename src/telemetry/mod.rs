//! What a running server tells its operators: metrics, logs, and which build it is.

mod build;
mod http;
mod logging;
mod metrics;

pub use build::Build;
pub use http::{RequestGuard, WaitGuard};
pub use logging::{LogFormat, LoggingError, start_logging};
pub use metrics::Metrics;
