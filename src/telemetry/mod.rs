//! What a running server tells its operators: metrics, logs, and which build it is.

mod build;
mod http;
mod logging;
mod metrics;
mod runs;
mod scores;
mod trace_context;
#[cfg(feature = "traces")]
mod traces;
#[cfg(not(feature = "traces"))]
mod untraced;
mod work;

pub(crate) use build::Build;
pub(crate) use http::{RequestGuard, WaitGuard};
pub(crate) use logging::{LogFormat, start_logging};
pub use metrics::Metrics;
pub(crate) use runs::Waiting;
pub(crate) use scores::state_word;
pub(crate) use trace_context::TraceContext;
#[cfg(feature = "traces")]
pub(crate) use traces::RequestTrace;
#[cfg(feature = "traces")]
pub use traces::Traces;
#[cfg(not(feature = "traces"))]
pub(crate) use untraced::RequestTrace;
#[cfg(not(feature = "traces"))]
pub use untraced::Traces;
pub(crate) use work::Work;
