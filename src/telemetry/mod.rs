//! What a running server tells its operators: metrics, logs, and which build it is.

mod build;
mod http;
mod logging;
mod metrics;
mod runs;

pub(crate) use build::Build;
pub(crate) use http::{RequestGuard, WaitGuard};
pub(crate) use logging::{LogFormat, start_logging};
pub use metrics::Metrics;
pub(crate) use runs::Waiting;
