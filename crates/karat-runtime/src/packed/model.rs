//! What is known of a model that takes packed rows before a session has blocks.

use karat_rules::domain::TensorSpec;

use super::PackedShape;

/// A model that takes packed rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedModel {
    /// How many bytes a block of keys and values takes over all layers.
    pub block_bytes: usize,
    /// How many tokens a text may have.
    pub context: usize,
    /// Whether a token sees only those before it and itself.
    pub causal: bool,
    /// The token that the model takes for padding, if its score stands at the last token that is another one.
    pub pad_id: Option<u32>,
    /// The outputs that are read at tokens, `[reads, width]`.
    pub outputs: Vec<TensorSpec>,
}

impl PackedModel {
    /// The measures of a session that has so many blocks.
    #[must_use]
    pub fn shape(&self, blocks: usize) -> PackedShape {
        PackedShape { blocks, block_bytes: self.block_bytes, context: self.context, causal: self.causal }
    }
}
