//! From a Hugging Face checkpoint folder to a graph that gives its scores.
//!
//! ```text
//! folder ─ config ─▶ trunk (which layers) ┐
//!        ─ weights ─▶ names, shapes       ├─▶ head (which numbers are the reward) ─▶ graph (for a device) + manifest
//!        ─ tokenizer, chat template ──────┘
//! ```
//!
//! [`Checkpoint::read`] decides everything from the folder alone and executes nothing of it. What it can't decide it
//! refuses, all of it at once: a graph that leaves something out gives scores that look right and aren't. The graph
//! refers to the weights by name; [`Graph::tensors`] says how each is read, so that no second copy is written anywhere.
//!
//! A trunk family is one file and a line in `trunks`; a head one file and a line in `heads`; a form of the graph one
//! file in `graphs`.

mod adapter;
mod checkpoint;
mod classes;
mod config;
mod decided;
mod ensemble;
mod graphs;
mod heads;
mod leftovers;
mod manifest;
mod normalise;
mod origin;
mod problems;
mod reading;
mod reasons;
mod recipe;
mod rope;
mod seeing;
mod tokens;
mod trunks;
mod weights;

pub use checkpoint::Checkpoint;
pub use graphs::{Element, Form, Graph, NumbersMut, Source, Tensor};
pub use origin::{FindModel, Origin};
pub use problems::CheckpointError;
