//! One pass over packed rows, as the contract `rm-packed/1` takes it.

use std::{any::Any, ops::Range};

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

    /// What writes a pass's inputs while another pass runs, if that is worth something.
    fn staging(&self) -> Option<Box<dyn PackedStaging>> {
        None
    }

    /// The same as [`Self::forward`] of a pass whose inputs [`Self::staging`] has written.
    ///
    /// # Errors
    /// As [`Self::forward`].
    fn forward_staged(
        &mut self,
        pass: &PackedPass,
        _staged: StagedPass,
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        self.forward(pass, cancel)
    }
}

/// Writes the inputs of passes where a session's device reads them, on any thread.
pub trait PackedStaging: Send + Sync {
    /// Writes the inputs of a pass.
    ///
    /// # Errors
    /// When there is no memory for them.
    fn stage(&self, pass: &PackedPass) -> Result<StagedPass, RuntimeError>;
}

/// The inputs of a pass, which only the executor looks into that they were written for.
pub struct StagedPass(pub(crate) Box<dyn Any + Send>);

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
    /// The segment of each token, for models that tell segments apart; empty where all are in the first.
    pub segments: Vec<u32>,
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

    /// The place of each token in its own text.
    #[must_use]
    pub(crate) fn positions(&self) -> Vec<usize> {
        let of_rows = self.sequences.iter().flat_map(|sequence| sequence.past..sequence.past + sequence.rows);
        let of_rows: Vec<usize> = of_rows.collect();
        self.contract.iter().map(|row| of_rows.get(*row).copied().unwrap_or_default()).collect()
    }

    /// Checks that the pass fits the model and itself: every index points at something, the sequences divide the rows,
    /// each has blocks enough and none beyond the caches, and no place in a block is written twice.
    ///
    /// # Errors
    /// [`RuntimeError::Row`] with the first contradiction.
    pub fn check(&self, shape: &PackedShape) -> Result<(), RuntimeError> {
        let tokens = self.tokens.len();
        if tokens == 0 {
            return refuse("it has no tokens".to_owned());
        }
        if !self.segments.is_empty() && self.segments.len() != tokens {
            return refuse(format!("it has {} segments for {tokens} tokens", self.segments.len()));
        }
        if let Some(token) = self.expand.iter().find(|token| **token >= tokens) {
            return refuse(format!("a row is of token {token}, and there are {tokens}"));
        }
        if self.contract.len() != tokens {
            return refuse(format!("{} tokens take a row, and there are {tokens}", self.contract.len()));
        }
        for (token, row) in self.contract.iter().enumerate() {
            if self.expand.get(*row) != Some(&token) {
                return refuse(format!("token {token} takes row {row}, which is not its own"));
            }
        }
        if !shape.causal && !self.expand.iter().copied().eq(0..tokens) {
            return refuse("rows aren't the tokens in their order for a model that looks both ways".to_owned());
        }
        if let Some(read) = self.reads.iter().find(|read| read.at >= tokens) {
            return refuse(format!("token {} is read, and there are {tokens}", read.at));
        }
        self.check_sequences(shape)
    }

    fn check_sequences(&self, shape: &PackedShape) -> Result<(), RuntimeError> {
        let rows = self.sequences.iter().fold(0_usize, |sum, sequence| sum.saturating_add(sequence.rows));
        if rows != self.expand.len() {
            return refuse(format!("its sequences have {rows} rows, and there are {}", self.expand.len()));
        }
        let mut written: Vec<(u32, Range<usize>)> = Vec::new();
        for sequence in &self.sequences {
            sequence.check(shape)?;
            let whole = sequence.past + sequence.rows;
            let own = sequence.blocks.iter().enumerate().skip(sequence.past / BLOCK_TOKENS);
            written.extend(own.take_while(|(place, _)| place * BLOCK_TOKENS < whole).map(|(place, block)| {
                let first = place * BLOCK_TOKENS;
                (*block, sequence.past.max(first) - first..whole.min(first + BLOCK_TOKENS) - first)
            }));
        }
        written.sort_by_key(|(block, places)| (*block, places.start));
        match written.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1.end > pair[1].1.start) {
            Some(pair) => refuse(format!("place {} of block {} is written twice", pair[1].1.start, pair[1].0)),
            None => Ok(()),
        }
    }
}

impl PackedSequence {
    fn check(&self, shape: &PackedShape) -> Result<(), RuntimeError> {
        let whole = self.past.saturating_add(self.rows);
        if self.rows == 0 {
            return refuse("a sequence has no rows".to_owned());
        }
        if whole > shape.context {
            return refuse(format!("a sequence has {whole} tokens, and the model's context is {}", shape.context));
        }
        if self.past > 0 && !shape.causal {
            return refuse("a sequence has a past, of which a model that looks both ways keeps nothing".to_owned());
        }
        if self.blocks.len() < whole.div_ceil(BLOCK_TOKENS) {
            return refuse(format!("a sequence of {whole} tokens has {} blocks", self.blocks.len()));
        }
        match self.blocks.iter().find(|block| **block as usize >= shape.blocks) {
            Some(block) => refuse(format!("block {block} is wanted, and there are {}", shape.blocks)),
            None => Ok(()),
        }
    }
}

fn refuse(reason: String) -> Result<(), RuntimeError> {
    Err(RuntimeError::Row { reason })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: PackedShape = PackedShape { blocks: 64, block_bytes: 1, context: 2048, causal: true };

    /// A prompt of `prompt` tokens, and responses of these lengths behind it: each repeats the tail of the prompt in a
    /// block of its own.
    fn group(prompt: usize, responses: &[usize]) -> PackedPass {
        let whole = prompt / BLOCK_TOKENS * BLOCK_TOKENS;
        let mut free = 0_u32..;
        let mut blocks = |count: usize| free.by_ref().take(count).collect::<Vec<_>>();
        let of_prompt = blocks(prompt.div_ceil(BLOCK_TOKENS));
        let mut pass = PackedPass {
            tokens: vec![7; prompt],
            expand: (0..prompt).collect(),
            contract: (0..prompt).collect(),
            sequences: vec![PackedSequence { rows: prompt, past: 0, blocks: of_prompt.clone() }],
            ..PackedPass::default()
        };
        for response in responses {
            let first = pass.tokens.len();
            pass.tokens.extend(vec![8; *response]);
            pass.expand.extend(whole..prompt);
            pass.contract.extend(pass.expand.len()..pass.expand.len() + response);
            pass.expand.extend(first..first + response);
            let rows = prompt - whole + response;
            let shared = of_prompt[..whole / BLOCK_TOKENS].iter().copied();
            let blocks = shared.chain(blocks(rows.div_ceil(BLOCK_TOKENS))).collect();
            pass.sequences.push(PackedSequence { rows, past: whole, blocks });
            pass.reads.push(PackedRead { at: first + response - 1, output: 0, what: Read::Numbers });
        }
        pass
    }

    /// A way to break a pass, which `number` varies.
    type Mistake = fn(&mut PackedPass, usize);

    const MISTAKES: [Mistake; 14] = [
        |pass, _| *pass = PackedPass::default(),
        |pass, _| pass.segments = vec![0],
        |pass, number| pass.expand[number % 3] = pass.tokens.len(),
        |pass, _| pass.contract.truncate(1),
        |pass, number| pass.contract[number % 3] = pass.expand.len(),
        |pass, number| pass.contract.swap(number % 2, 2),
        |pass, _| pass.reads[0].at = pass.tokens.len(),
        |pass, _| pass.sequences[0].rows += 1,
        |pass, _| pass.sequences.push(PackedSequence::default()),
        |pass, _| pass.sequences[0].past = usize::MAX,
        |pass, _| pass.sequences[0].past = 2048,
        |pass, _| {
            pass.sequences[1].blocks.pop();
        },
        |pass, number| pass.sequences[0].blocks[0] = 64 + u32::try_from(number).unwrap(),
        |pass, _| pass.sequences[2].blocks = pass.sequences[1].blocks.clone(),
    ];

    proptest! {
        #[test]
        fn a_shared_prompt_of_any_length_fits_and_every_mistake_is_found(
            prompt in 3_usize..800,
            responses in prop::collection::vec(1_usize..300, 2..6),
            mistake in 0..MISTAKES.len(),
            number in 0_usize..1000,
        ) {
            let mut pass = group(prompt, &responses);
            prop_assert!(pass.check(&SHAPE).is_ok(), "{:?}", pass.check(&SHAPE));
            MISTAKES[mistake](&mut pass, number);
            let refused = matches!(pass.check(&SHAPE), Err(RuntimeError::Row { .. }));
            prop_assert!(refused, "mistake {mistake}");
        }
    }

    #[test]
    fn a_model_that_looks_both_ways_has_no_past() {
        let pass = group(256, &[5]);
        let encoder = PackedShape { causal: false, ..SHAPE };
        assert!(pass.check(&encoder).unwrap_err().to_string().contains("has a past"));
        assert!(group(200, &[5]).check(&encoder).unwrap_err().to_string().contains("in their order"));
        assert!(group(200, &[]).check(&encoder).is_ok());
    }

    #[test]
    fn tokens_know_their_places_behind_a_prompt() {
        let positions = group(258, &[1, 2]).positions();
        assert_eq!(positions[256..], [256, 257, 258, 258, 259]);
    }

    #[test]
    fn a_block_may_hold_what_two_sequences_write_at_different_places() {
        let mut pass = group(3, &[5, 5]);
        let first = pass.sequences[1].blocks[0];
        pass.sequences[2] = PackedSequence { rows: 8, past: 8, blocks: vec![first] };
        assert!(pass.check(&SHAPE).is_ok());
        pass.sequences[2].past = 7;
        assert!(pass.check(&SHAPE).unwrap_err().to_string().contains("place 7 of block 1 is written twice"));
    }
}
