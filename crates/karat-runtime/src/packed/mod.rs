//! Packed rows: all samples of a pass as one row of tokens, without padding, over blocks of keys and values.

mod model;
mod pass;

pub use model::PackedModel;
pub use pass::{BLOCK_TOKENS, PackedExecutor, PackedPass, PackedRead, PackedSequence, PackedShape};
