//! Packed rows: all samples of a pass as one row of tokens, without padding, over blocks of keys and values.

mod blocks;
mod layout;
mod model;
mod pass;
mod queue;
mod rows;
mod session;
#[cfg(test)]
mod simulated;
mod texts;

pub use model::PackedModel;
pub use pass::{
    BLOCK_TOKENS, PackedExecutor, PackedPass, PackedRead, PackedSequence, PackedShape, PackedStaging, StagedPass,
};
pub use rows::PackedRows;
pub use session::PackedSession;
pub use texts::{NextTokens, PackedText, PackedTexts};
