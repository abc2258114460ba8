//! karat: a reward-model inference server.
//!
//! It loads ONNX reward models and checkpoints, batches the requests of many clients, and returns scores that can be
//! trusted: the ensemble's mean, its worst case, its uncertainty-weighted score, and bounded transforms of them.
//!
//! This crate is the program: HTTP in [`api`] and [`server`], commands in [`cli`], logs and metrics in [`telemetry`].
//! What it serves comes from the crates below it, each with a tour of its own:
//!
//! - [`karat_engine`]: from a request to a report, and from a folder to models. [`Engine::score`] is the call to begin with.
//! - [`karat_runtime`]: what a graph computes. [`Executor`] is the trait behind which ONNX Runtime stands.
//! - [`karat_checkpoint`]: from a checkpoint's folder to a graph.
//! - [`karat_rules`]: heads, aggregations, transforms, selection rules and metrics. Each is a [`Rule`].
//!
//! `ARCHITECTURE.md` beside this crate tells the way of a request through all of them, why things are where they are, and
//! where to add a rule, a dialect, a metric, a trunk or a provider.
//!
//! [`Engine::score`]: karat_engine::engine::Engine::score
//! [`Executor`]: karat_runtime::Executor
//! [`Rule`]: karat_rules::domain::catalogue::Rule

pub mod api;
pub mod cli;
pub mod server;
mod settings;
pub mod telemetry;
