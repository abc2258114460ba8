//! Training runs as a reward server sees them.
//!
//! ```text
//! scored samples ─ registry::Recorder ─▶ registry::Runs ─▶ run::Run ─▶ statistics ─▶ signals
//!                                             └─────────── store ◀── jobs
//! ```
pub mod registry;
pub mod run;
pub mod signals;
pub mod statistics;
pub mod store;
