//! karat: a reward-model inference server.
//!
//! It loads ONNX reward models, batches the requests of many clients, and returns scores that can be trusted: the
//! ensemble's mean, its worst case, its uncertainty-weighted score, and bounded transforms of them.
//!
//! # The way of a request
//!
//! ```text
//! HTTP bytes
//!  └ api        a dialect's request type          ─▶ engine::ScoreRequest, valid once built
//!  └ text       render, tokenise, truncate        ─▶ rules::TokenizedInput
//!  └ engine     cache: known? on its way?         ─▶ skips to aggregation
//!  └ schedule   admit, wait, form a batch         ─▶ runtime::TokenBatch
//!  └ runtime    one forward pass                  ─▶ domain::RowTensor
//!  └ head       raw tensor to scores              ─▶ head::HeadOutput
//!  └ aggregate  members to one score              ─▶ domain::Reward
//!  └ transform  clip, delta, log-sigmoid, …       ─▶ domain::Reward
//!  └ api        a dialect's response type
//! ```
//!
//! # The crates
//!
//! Data flows one way. A crate uses those above it in this table, which Cargo holds; inside a crate a folder uses those
//! below it, which a test holds.
//!
//! | crate | folder | what it is |
//! |---|---|---|
//! | [`karat_rules`] | `domain`, `numeric` | the vocabulary: conversations, rewards, tokens, tensors, catalogues of rules; statistics |
//! | | `head`, `aggregate`, `transform`, `select`, `metrics` | the scoring rules: one file each, listed in the folder's `mod.rs` |
//! | | `catalogue` | every rule as data and as a page |
//! | `karat_onnx` | | ONNX files as types, generated from ONNX's schema |
//! | [`karat_runtime`] | | what a graph computes: executors, ONNX Runtime, devices, shared prefixes |
//! | [`karat_engine`] | `text` | from samples to tokens |
//! | | `workers` | what owns threads: how they drain and stop |
//! | | `manifest`, `schedule`, `generate` | `model.toml`, checked against the graph; what runs next; writing text |
//! | | `repository` | a model's life: loading, versions, statuses, the end of its threads |
//! | | `engine` | a request's life: the one call, from a request to a report; the cache |
//! | `karat` | [`api`], [`server`] | HTTP: dialects as thin adapters; listening and draining |
//! | | `settings`, [`cli`] | flags and environment variables; commands |
//!
//! Each crate has a `telemetry` of its own, for all of its folders.
//!
//! # Adding a dialect
//!
//! A dialect of another server is a folder under `api::dialects` with its `DIALECT`, its `mod` line and its row in the
//! table of `api/dialects/mod.rs`. Routes, shared paths, the OpenAPI document and `--shed` follow from the table.
//!
//! # Adding a rule
//!
//! A new aggregation, transform or head is one file with a [`Rule`](karat_rules::domain::catalogue::Rule) and one line
//! in the list of its folder's `mod.rs`. Manifests, requests, schemas and documentation follow from it.

pub mod api;
pub mod cli;
pub mod server;
mod settings;
pub mod telemetry;
