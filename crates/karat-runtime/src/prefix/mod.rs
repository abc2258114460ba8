//! Computes what texts have in common once: prefix sharing for Best-of-N, trainers and long instructions.
//!
//! ```text
//! batch ─▶ PrefixCache: what is known ─▶ Forest: what is common ─▶ rows ─▶ DecoderExecutor ─▶ one row a sample
//!                     ▲                                             │
//!                     └──────────── keys and values ────────────────┘
//! ```
//!
//! [`PrefixExecutor`] is an [`Executor`](super::Executor) on top of a [`DecoderExecutor`](super::DecoderExecutor). Whole
//! conversations are compared, token by token: nobody has to say what is a prompt. Of what samples begin with in common
//! nothing is computed twice, within a batch and, as far as the [`PrefixCache`] remembers, from batch to batch. A
//! sample alone takes the same way; it costs what its own tokens cost. How rows are cut and filled is decided by what
//! rows were measured to cost ([`RowCost`]), and those that don't build on each other may run side by side
//! ([`Singles`]).

mod cache;
mod cost;
mod executor;
mod forest;
mod model;
mod order;
mod path;
mod rows;
mod singles;

pub use cache::{BLOCK, PrefixCache};
pub use cost::RowCost;
pub use executor::PrefixExecutor;
pub use model::SharedModel;
pub use singles::Singles;
