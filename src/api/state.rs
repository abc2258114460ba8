//! What every handler can reach.

use std::{sync::Arc, time::Duration};

use karat_engine::engine::Engine;

use super::{DialectSettings, RunState, Visitors};
use crate::telemetry::Metrics;

/// What every handler can reach; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Scores.
    pub engine: Arc<Engine>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Bounds on what a request may send.
    pub limits: ApiLimits,
    /// What an operator decides for all dialects.
    pub dialects: Arc<DialectSettings>,
    /// Which web pages may use the server.
    pub visitors: Arc<Visitors>,
    /// The training runs that it scores for, and its jobs.
    pub runs: Arc<RunState>,
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
