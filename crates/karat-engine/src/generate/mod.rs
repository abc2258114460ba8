//! Writes text with a decoder: many texts at once, token by token.
//!
//! One thread owns a session, or a share of one, and runs one pass after another. A pass holds the last token of every text that is being
//! written and, in what room is left, pieces of prompts that still have to be read: a new text joins at the next pass and
//! holds nobody up, and one that ends makes room at once. What a text becomes depends on its prompt, its seed and the
//! model alone, not on its neighbours.
//!
//! ```text
//! Order ─ queue ─▶ prompt, read in pieces ─▶ text: draw a token, compute its successor's logits, … ─▶ Stream
//! ```
//!
//! Tokens are ids here; letters, stop strings and what is made of the text are the caller's.

mod generator;
mod memory;
mod order;
mod orders;
mod pages;
mod rows;
mod sampling;
mod slots;
mod stream;
mod worker;

pub use generator::Generator;
pub(crate) use order::Order;
pub use order::{GenerationLimits, GenerationRefusal};
pub use sampling::{Sampling, SamplingError};
pub use stream::GenerateError;
pub(crate) use stream::{Event, Finish, Stream};

#[cfg(test)]
mod tests;
