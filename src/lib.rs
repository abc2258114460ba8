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
//!  └ text       render, tokenise, truncate        ─▶ domain::TokenizedInput
//!  └ engine     cache: known? on its way?         ─▶ skips to aggregation
//!  └ schedule   admit, wait, form a batch         ─▶ runtime::TokenBatch
//!  └ runtime    one forward pass                  ─▶ domain::RowTensor
//!  └ head       raw tensor to scores              ─▶ head::HeadOutput
//!  └ aggregate  members to one score              ─▶ domain::Reward
//!  └ transform  clip, delta, log-sigmoid, …       ─▶ domain::Reward
//!  └ api        a dialect's response type
//! ```
//!
//! # The layers
//!
//! Data flows one way; a layer uses the layers below it and [`telemetry`], never those above. A test holds the `use`
//! lines to this table.
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | 0 | [`domain`] | the vocabulary: conversations, rewards, tokens, tensors, catalogues of rules |
//! | 0 | [`numeric`] | statistics and stable forms that the rules share |
//! | 1 | [`aggregate`], [`transform`], [`head`] | the scoring rules: one file each, listed in the folder's `mod.rs` |
//! | 1 | [`select`], [`evaluate`] | picking among candidates; metrics over scores |
//! | 2 | [`catalogue`] | every rule as data and as a page |
//! | 2 | [`text`], [`runtime`] | from samples to tokens; from tokens to tensors |
//! | 3 | [`manifest`], [`schedule`], [`generate`] | `model.toml`, checked against the graph; what runs next; writing text |
//! | 4 | [`engine`] | the one call: `ScoreRequest` to `ScoreReport`; the model repository and the cache |
//! | 5 | [`api`], [`server`] | HTTP: dialects as thin adapters; listening and draining |
//! | 6 | [`settings`] | flags and environment variables |
//! | 7 | [`cli`] | commands |
//! | – | [`telemetry`] | metrics, logs and build information, for every layer |
//!
//! # Adding a rule
//!
//! A new aggregation, transform or head is one file with an [`Entry`](domain::catalogue::Entry) constant and one line
//! in the list of its folder's `mod.rs`. Manifests, requests, schemas and documentation follow from the entry.

pub mod aggregate;
pub mod api;
pub mod catalogue;
pub mod cli;
pub mod domain;
pub mod engine;
pub mod evaluate;
pub mod generate;
pub mod head;
pub mod manifest;
pub mod numeric;
pub mod runtime;
pub mod schedule;
pub mod select;
pub mod server;
pub mod settings;
pub mod telemetry;
pub mod text;
pub mod transform;
