//! One pass over packed rows, as the contract `rm-packed/1` takes it.

use karat_rules::domain::RowTensor;

use crate::{Cancellation, Read, RuntimeError};

/// How many tokens a block of keys and values holds: `FlashAttention` takes no other number.
pub const BLOCK_TOKENS: usize = 256;

/// Something that runs packed rows: one session with its device caches, owned by one thread.
pub trait PackedExecutor: Send {
    /// Computes one pass; blocks until it is done or cancelled. Gives what was read, in the pass's order.
    ///
    /// # Errors
    /// [`RuntimeError::Row`] when the pass contradicts itself or the model, [`RuntimeError::Cancelled`] when `cancel` was
    /// used, another error when the pass failed. The executor can be used again after any; what the pass wrote into its
    /// blocks is then undefined.
    fn forward(&mut self, pass: &PackedPass, cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError>;

    /// The model's measures.
    fn shape(&self) -> PackedShape;
}

/// The measures of a packed graph and its caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedShape {
    /// How many blocks of [`BLOCK_TOKENS`] tokens the caches hold.
    pub blocks: usize,
    /// How many bytes a block takes over all layers.
    pub block_bytes: usize,
    /// How many tokens a text may have.
    pub context: usize,
    /// Whether a token sees only those before it and itself. Where it sees all of its text, nothing is kept between
    /// passes.
    pub causal: bool,
}

/// The tokens of all sequences of a pass, each computed once.
///
/// ```text
/// tokens   [ prompt ........ tail │ response 1 │ response 2 ]      products, norms and MLP see each token once
/// rows     [ prompt ........ tail │ tail response 1 │ tail response 2 ]       attention sees what `expand` repeats
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedPass {
    /// The token ids; at least one.
    pub tokens: Vec<u32>,
    /// For each row that attention sees, the token that it is of.
    pub expand: Vec<usize>,
    /// For each token, the row whose attention it takes.
    pub contract: Vec<usize>,
    /// The sequences, which divide the rows in this order.
    pub sequences: Vec<PackedSequence>,
    /// Where outputs are read.
    pub reads: Vec<PackedRead>,
}

/// One sequence of attention: rows that see what their blocks hold and each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedSequence {
    /// How many of the pass's rows are its own; at least one.
    pub rows: usize,
    /// How many tokens before them its blocks hold already, or will hold once another sequence of this pass is written.
    pub past: usize,
    /// The blocks of its past and of its rows, in order: enough for `past + rows` tokens.
    pub blocks: Vec<u32>,
}

/// Where an output is read, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRead {
    /// The token at which it is read, counted over the pass's tokens.
    pub at: usize,
    /// Which output: its place among those that the executor was made to read.
    pub output: usize,
    /// What of it.
    pub what: Read,
}

impl PackedPass {
    /// The longest sequence's rows, and the most tokens of one with its past: what attention wants to know beforehand.
    #[must_use]
    pub fn longest(&self) -> (usize, usize) {
        let rows = self.sequences.iter().map(|sequence| sequence.rows).max().unwrap_or(0);
        let whole = self.sequences.iter().map(|sequence| sequence.past + sequence.rows).max().unwrap_or(0);
        (rows, whole)
    }
}
