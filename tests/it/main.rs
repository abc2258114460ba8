//! The integration tests: karat as its users meet it, over HTTP and on the command line.
//!
//! One binary, so that ONNX Runtime is linked and loaded once. The models are the tiny graphs of `tests/graphs`, whose
//! scores can be computed by hand; every test makes a repository of its own and listens on a port of its own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should panic")]

mod adapters;
mod bad_input;
mod checkpoints;
mod compression;
mod console;
mod critique;
mod decoder;
mod decoder_heads;
mod dialects;
mod ending;
mod first_passes;
mod generated;
#[cfg(feature = "hub")]
mod hub;
mod images;
mod intake;
mod keys;
mod layers;
mod loading;
mod memory;
mod metrics;
#[cfg(feature = "offline")]
mod offline;
mod packed;
mod process;
mod quantised;
mod refused;
mod replacing;
mod runs;
mod scheduling;
mod scoring;
mod stopping;
mod support;
mod terminal;
mod tls;
mod toolkit;
#[cfg(feature = "traces")]
mod traces;
mod trial;
