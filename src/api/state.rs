//! What every handler can reach.

use std::{sync::Arc, time::Duration};

use karat_engine::engine::Engine;

use super::{Closing, DialectSettings, Fetcher, Keys, LargeBodies, RunState, Visit, Visitors};
use crate::telemetry::{Metrics, Traces};

/// What every handler can reach; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Scores.
    pub engine: Arc<Engine>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Bounds on what a request may send.
    pub limits: ApiLimits,
    /// Where large bodies are read.
    pub large_bodies: LargeBodies,
    /// What an operator decides for all dialects.
    pub dialects: Arc<DialectSettings>,
    /// Which web pages may use the server.
    pub visitors: Arc<Visitors>,
    /// What fetches images by URL.
    pub images: Fetcher,
    /// The training runs that it scores for, and its jobs.
    pub runs: Arc<RunState>,
    /// Who may use it beside them.
    pub keys: Arc<Keys>,
    /// Whether the server is about to end.
    pub closing: Closing,
    /// Where traces go, if anywhere.
    pub traces: Option<Arc<Traces>>,
    /// Whose request it is; nobody's in the state of the whole server.
    pub visit: Visit,
}

impl AppState {
    /// Whether requests should come here.
    pub(super) fn is_ready(&self) -> bool {
        !self.closing.is_leaving() && self.engine.repository().is_ready()
    }
}

/// Bounds on what a request may send.
#[derive(Debug, Clone, Copy)]
pub struct ApiLimits {
    /// The largest body in bytes.
    pub body_bytes: usize,
    /// The most inputs in one request.
    pub inputs: usize,
    /// How long a body may take to arrive.
    pub receive: Duration,
    /// The most bytes of bodies that are held at once, over all connections.
    pub buffered_bytes: usize,
}
