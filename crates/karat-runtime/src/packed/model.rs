//! What is known of a model that takes packed rows before a session has blocks.

use karat_rules::domain::TensorSpec;

use super::PackedShape;
use crate::{Padding, TextNeeds};

/// A model that takes packed rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedModel {
    /// How many bytes a block of keys and values takes over all layers.
    pub block_bytes: usize,
    /// How many tokens a text may have.
    pub context: usize,
    /// Whether a token sees only those before it and itself.
    pub causal: bool,
    /// Where the score of a text stands, if the model has a token that it takes for padding.
    pub padding: Option<Padding>,
    /// What texts must hold.
    pub needs: TextNeeds,
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
