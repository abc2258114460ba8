//! What is asked of the generator, and what it takes.

use std::{num::NonZeroUsize, sync::Arc};

use super::{sampling::Sampling, slots::BLOCK};

/// How much is written at once, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationLimits {
    /// The most texts that are written at once.
    pub texts: usize,
    /// The most tokens, of prompts and texts, whose keys and values are held at once.
    pub tokens: usize,
    /// The most orders that may wait.
    pub waiting: usize,
    /// The most tokens of a row: what prompts may take of one step.
    pub row: usize,
    /// Of how many tokens the blocks are in which keys and values are held.
    pub block: usize,
}

impl GenerationLimits {
    /// How many blocks are held at once.
    pub(super) fn blocks(&self) -> usize {
        self.tokens / self.block
    }
}

impl Default for GenerationLimits {
    /// 16 texts, 16,384 tokens, 64 waiting orders, rows of up to 256 tokens, from which on processor cores gain nothing.
    fn default() -> Self {
        Self { texts: 16, tokens: 1 << 14, waiting: 64, row: 256, block: BLOCK }
    }
}

/// One or several texts to write after the same prompt.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The prompt's tokens, at least one.
    pub prompt: Arc<[u32]>,
    /// How each text's tokens are chosen; at least one text.
    pub texts: Vec<Sampling>,
    /// The most tokens of each text.
    pub max_tokens: NonZeroUsize,
    /// The tokens that end a text and aren't part of it.
    pub ends: Arc<[u32]>,
}

impl Order {
    /// Whether an idle generator could ever write it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, limits: &GenerationLimits) -> Result<(), GenerationRefusal> {
        if self.prompt.is_empty() || self.texts.is_empty() {
            return Err(GenerationRefusal::Empty);
        }
        if self.texts.len() > limits.texts {
            return Err(GenerationRefusal::TooMany { texts: self.texts.len(), most: limits.texts });
        }
        if self.blocks(limits) > limits.blocks() {
            let tokens = self.prompt.len() + self.texts.len() * self.max_tokens.get();
            return Err(GenerationRefusal::TooLarge { tokens, most: limits.tokens });
        }
        Ok(())
    }

    /// How many blocks of places it may come to take.
    pub(super) fn blocks(&self, limits: &GenerationLimits) -> usize {
        let GenerationLimits { block, .. } = *limits;
        // Each text may need what stands of the prompt in its last block once more.
        let own = self.prompt.len() % block + self.max_tokens.get();
        self.prompt.len().div_ceil(block) + self.texts.len() * own.div_ceil(block)
    }
}

/// Why an order was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GenerationRefusal {
    /// Too many wait.
    #[error("{0} requests wait for their texts already; try again later")]
    Full(usize),
    /// It is larger than the whole generator.
    #[error(
        "the prompt and its texts may come to {tokens} tokens, and at most {most} are held at once; ask for fewer or \
         shorter texts"
    )]
    TooLarge {
        /// What it may come to.
        tokens: usize,
        /// What is held at once.
        most: usize,
    },
    /// It asks for more texts than are ever written at once.
    #[error("{texts} texts are asked for, and at most {most} are written at once; ask for fewer")]
    TooMany {
        /// What it asks for.
        texts: usize,
        /// What is written at once.
        most: usize,
    },
    /// The order holds no prompt or no text.
    #[error("there is no prompt to go on from, or no text is asked for")]
    Empty,
    /// The generator takes no more orders.
    #[error("the server is shutting down; send the request to another one")]
    Stopped,
}
