//! A decoder, one row at a time: what prefix sharing, generation and the heads that ask a decoder are built on.
//!
//! A decoder's keys and values of a token depend only on the tokens before it. So they can be computed once and
//! lent to whatever follows: [`DecoderExecutor::forward`] takes a row of new tokens together with the [`KeyValues`] of
//! tokens that went before, and a mask that says which token sees which. One row holds a prompt, a few candidates
//! that share one, candidates of several prompts, or one token each of many texts that are being written.
//!
//! ```text
//!            past                 new tokens of the row
//!     [ prompt │ prompt' ]   [ candidate │ candidate │ candidate' ]
//!         ▲                        span        span        span
//!         └── seen by the first two spans; the third sees prompt'
//! ```

mod edit;
mod number;
mod text;

use std::{fmt, ops::Range, sync::Arc};

use half::{bf16, f16};
use karat_rules::domain::{ElementType, RowTensor};

use super::{Cancellation, RuntimeError};
pub(crate) use number::Number;
pub use text::{Padding, TextNeeds};

/// Something that runs a decoder: one session, owned by one thread.
pub trait DecoderExecutor: Send {
    /// Computes one row; blocks until it is done or cancelled.
    ///
    /// # Errors
    /// [`RuntimeError::Row`] when the row contradicts itself or the model, [`RuntimeError::Cancelled`] when `cancel` was
    /// used, another error when the pass failed. The executor can be used again after any.
    fn forward(&mut self, row: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError>;

    /// The model's measures.
    fn shape(&self) -> DecoderShape;

    /// Gives back what is kept for rows that continue the same tokens: the past of the last row, put together.
    fn forget(&mut self) {}
}

/// The measures of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderShape {
    /// How many layers keep keys and values.
    pub layers: usize,
    /// How many heads of keys and values each layer has.
    pub kv_heads: usize,
    /// How many numbers a key or value of one head has.
    pub head_dim: usize,
    /// How many tokens a text may have.
    pub context: usize,
    /// The number format of keys and values.
    pub element: ElementType,
}

impl DecoderShape {
    /// How many numbers the keys and values of one token are, over all layers.
    #[must_use]
    pub(crate) fn numbers_per_token(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim
    }

    /// How many bytes that is.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        let number = match self.element {
            ElementType::Float16 | ElementType::Bfloat16 => 2,
            _ => 4,
        };
        self.numbers_per_token() * number
    }
}

/// New tokens, and what they may see.
#[derive(Debug, Clone, Default)]
pub struct DecoderRow {
    /// The keys and values that the row's tokens may see, strung together in this order.
    pub past: Vec<Past>,
    /// The new tokens; at least one.
    pub spans: Vec<Span>,
    /// Where outputs are read, counted over the new tokens of all spans.
    pub reads: Vec<ReadAt>,
    /// Which new tokens' keys and values are wanted, counted over the new tokens of all spans.
    pub keep: Vec<Range<usize>>,
}

impl DecoderRow {
    /// How many new tokens there are.
    #[must_use]
    pub(crate) fn new_tokens(&self) -> usize {
        self.spans.iter().map(|span| span.tokens.len()).sum()
    }

    /// How many tokens went before, seen or not.
    #[must_use]
    pub(crate) fn past_tokens(&self) -> usize {
        self.past.iter().map(|past| past.range.len()).sum()
    }

    /// Checks that every range lies within what it points into, and that no token stands beyond the model's context.
    ///
    /// # Errors
    /// [`RuntimeError::Row`] with the first contradiction.
    pub fn check(&self, shape: &DecoderShape) -> Result<(), RuntimeError> {
        let refuse = |reason: String| Err(RuntimeError::Row { reason });
        let (new, past) = (self.new_tokens(), self.past_tokens());
        let within = |range: &Range<usize>, end: usize| range.start <= range.end && range.end <= end;
        if new == 0 {
            return refuse("it has no tokens".to_owned());
        }
        for part in &self.past {
            if !within(&part.range, part.values.tokens) {
                return refuse(format!("tokens {:?} of {} are wanted as past", part.range, part.values.tokens));
            }
            if !part.values.fits(shape) {
                return refuse("its past was computed by another model".to_owned());
            }
        }
        let mut before = 0;
        for span in &self.spans {
            if span.tokens.is_empty() {
                return refuse("a span has no tokens".to_owned());
            }
            if span.position + span.tokens.len() > shape.context {
                return refuse(format!(
                    "a span reaches position {}, and the model's context is {} tokens",
                    span.position + span.tokens.len(),
                    shape.context
                ));
            }
            if !span.sees_past.iter().all(|range| within(range, past))
                || !span.sees_new.iter().all(|range| within(range, before))
            {
                return refuse("a span sees tokens that don't go before it".to_owned());
            }
            let seen: usize = span.sees_past.iter().chain(&span.sees_new).map(Range::len).sum();
            if seen > span.position {
                return refuse(format!("a span at position {} sees {seen} tokens before it", span.position));
            }
            before += span.tokens.len();
        }
        if self.reads.iter().any(|read| read.at >= new) || !self.keep.iter().all(|range| within(range, new)) {
            return refuse("tokens are read or kept that the row doesn't have".to_owned());
        }
        Ok(())
    }
}

/// Consecutive tokens that went before a row.
#[derive(Debug, Clone)]
pub struct Past {
    /// Their keys and values, perhaps among others.
    pub values: Arc<KeyValues>,
    /// Which of those tokens.
    pub range: Range<usize>,
}

impl Past {
    /// All tokens of `values`.
    #[must_use]
    pub fn all(values: Arc<KeyValues>) -> Self {
        let range = 0..values.tokens;
        Self { values, range }
    }

    /// Whether both are the same tokens of the same computation.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values, &other.values) && self.range == other.range
    }
}

/// Consecutive new tokens of one text. Each sees those before it in the span, itself, and what the span sees: tokens that
/// go right before it in the text, those of the past first, in the order of the text.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// The token ids; at least one.
    pub tokens: Vec<u32>,
    /// The position of the first of them in its text, counted from 0.
    pub position: usize,
    /// Which past tokens they see, counted over the row's whole past.
    pub sees_past: Vec<Range<usize>>,
    /// Which tokens of earlier spans they see, counted over the row's new tokens.
    pub sees_new: Vec<Range<usize>>,
}

/// Where an output is read, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAt {
    /// The new token at which it is read.
    pub at: usize,
    /// Which output: its place among those that the executor was made to read.
    pub output: usize,
    /// What of it.
    pub what: Read,
}

/// What is read of an output at a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The numbers as they are: scores, a state, or logits of the whole vocabulary. Shape `[width]`.
    Numbers,
    /// Natural logarithms of the probabilities, by a softmax over the whole output, of these columns: of the tokens
    /// that may come next, where the output is logits. Shape `[columns]`.
    LogProbabilities(Arc<[u32]>),
    /// The numbers of these columns as they are: of logits, those of these tokens. Shape `[columns]`.
    Columns(Arc<[u32]>),
}

/// What a row gave.
#[derive(Debug, Clone, Default)]
pub struct DecoderRowOutput {
    /// What was read, in the row's order.
    pub reads: Vec<RowTensor>,
    /// The keys and values of each kept range, in the row's order.
    pub kept: Vec<Arc<KeyValues>>,
}

impl DecoderRowOutput {
    /// Whether every number is finite. One that isn't may belong to any text of the row, and would spread from keys and
    /// values that are used again: a weight of 0 times no number is none either.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.reads.iter().flat_map(RowTensor::values).all(|value| value.is_finite())
            && self.kept.iter().all(|kept| kept.is_finite())
    }
}

/// The keys and values of consecutive tokens in every layer: immutable, so that any number of rows may share them.
#[derive(Clone, PartialEq)]
pub struct KeyValues {
    tokens: usize,
    numbers: Numbers,
}

/// Numbers of axes `[layers, 2, kv_heads, tokens, head_dim]`: keys before values.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// Single precision.
    Float32(Box<[f32]>),
    /// Half precision.
    Float16(Box<[f16]>),
    /// The upper half of single precision.
    Bfloat16(Box<[bf16]>),
}

impl KeyValues {
    /// The keys and values of `tokens` tokens; `None` when there are not as many numbers as `shape` says.
    #[must_use]
    pub fn new(shape: &DecoderShape, tokens: usize, numbers: Numbers) -> Option<Self> {
        let values = Self { tokens, numbers };
        values.fits(shape).then_some(values)
    }

    /// Strings consecutive tokens together; `None` unless all are of one model.
    #[must_use]
    pub(crate) fn join(shape: &DecoderShape, parts: &[Past]) -> Option<Self> {
        let tokens = parts.iter().map(|part| part.range.len()).sum();
        let fitting = parts.iter().all(|part| part.values.fits(shape) && part.range.end <= part.values.tokens);
        let numbers = fitting.then(|| match shape.element {
            ElementType::Float16 => joined_numbers::<f16>(shape, parts),
            ElementType::Bfloat16 => joined_numbers::<bf16>(shape, parts),
            _ => joined_numbers::<f32>(shape, parts),
        });
        Self::new(shape, tokens, numbers?)
    }

    fn fits(&self, shape: &DecoderShape) -> bool {
        let (count, element) = match &self.numbers {
            Numbers::Float32(numbers) => (numbers.len(), ElementType::Float32),
            Numbers::Float16(numbers) => (numbers.len(), ElementType::Float16),
            Numbers::Bfloat16(numbers) => (numbers.len(), ElementType::Bfloat16),
        };
        element == shape.element && count == shape.numbers_per_token() * self.tokens
    }

    /// How many tokens they belong to.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The memory that they take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match &self.numbers {
            Numbers::Float32(numbers) => size_of_val::<[f32]>(numbers),
            Numbers::Float16(numbers) => size_of_val::<[f16]>(numbers),
            Numbers::Bfloat16(numbers) => size_of_val::<[bf16]>(numbers),
        }
    }
}

/// The numbers of all parts, head by head; every part is known to have as many as `shape` says.
fn joined_numbers<T: Number>(shape: &DecoderShape, parts: &[Past]) -> Numbers {
    let mut numbers = Vec::new();
    for head in 0..2 * shape.layers * shape.kv_heads {
        for part in parts {
            let at = |token: usize| (head * part.values.tokens + token) * shape.head_dim;
            let own = T::of(&part.values.numbers).unwrap_or_default();
            numbers.extend_from_slice(&own[at(part.range.start)..at(part.range.end)]);
        }
    }
    T::wrap(numbers)
}

impl fmt::Debug for KeyValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValues").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges that happen to hold one")]
mod tests {
    use super::*;

    const SHAPE: DecoderShape =
        DecoderShape { layers: 2, kv_heads: 1, head_dim: 4, context: 10, element: ElementType::Float32 };

    fn values(tokens: usize) -> Arc<KeyValues> {
        let numbers = vec![0.0; SHAPE.numbers_per_token() * tokens];
        Arc::new(KeyValues::new(&SHAPE, tokens, Numbers::Float32(numbers.into())).unwrap())
    }

    fn row() -> DecoderRow {
        let span = |tokens: &[u32], position, past: Range<usize>| Span {
            tokens: tokens.to_vec(),
            position,
            sees_past: vec![past],
            sees_new: Vec::new(),
        };
        DecoderRow {
            past: vec![Past::all(values(3)), Past { values: values(5), range: 1..3 }],
            spans: vec![span(&[1, 2], 3, 0..3), span(&[3], 2, 3..5)],
            reads: vec![ReadAt { at: 2, output: 0, what: Read::Numbers }],
            keep: vec![0..3],
        }
    }

    #[test]
    fn a_row_that_contradicts_itself_is_refused() {
        assert!(row().check(&SHAPE).is_ok());
        type Mistake = fn(&mut DecoderRow);
        let mistakes: [(&str, Mistake); 10] = [
            ("no tokens", |row| row.spans.clear()),
            ("no tokens", |row| row.spans[0].tokens.clear()),
            ("context", |row| row.spans[1].position = 10),
            ("before it", |row| row.spans[0].sees_past = vec![2..6]),
            ("before it", |row| row.spans[0].sees_new = vec![0..1]),
            ("sees 3 tokens", |row| row.spans[0].position = 2),
            ("doesn't have", |row| row.reads[0].at = 3),
            ("doesn't have", |row| row.keep[0].end = 4),
            ("as past", |row| row.past[0].range = 0..4),
            ("another model", |row| {
                let numbers = Numbers::Float16(vec![f16::ZERO; 48].into());
                row.past[0].values = Arc::new(KeyValues { tokens: 3, numbers });
            }),
        ];
        for (part, mistake) in mistakes {
            let mut row = row();
            mistake(&mut row);
            let error = row.check(&SHAPE).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn parts_are_strung_together_head_by_head() {
        let part = |numbers: [f32; 16]| {
            let shape = DecoderShape { kv_heads: 2, layers: 1, head_dim: 1, ..SHAPE };
            (shape, Past::all(Arc::new(KeyValues::new(&shape, 4, Numbers::Float32(numbers.into())).unwrap())))
        };
        let (shape, a) = part(std::array::from_fn(|at| at as f32));
        let (_, b) = part(std::array::from_fn(|at| 100.0 + at as f32));
        let joined = KeyValues::join(&shape, &[Past { range: 2..4, ..a }, Past { range: 0..1, ..b.clone() }]).unwrap();
        assert_eq!(joined.tokens(), 3);
        let expected = [2, 3, 100, 6, 7, 104, 10, 11, 108, 14, 15, 112].map(|number| number as f32);
        assert_eq!(joined.numbers(), &Numbers::Float32(expected.into()));
        assert!(KeyValues::join(&SHAPE, &[b]).is_none(), "another model's");
    }

    #[test]
    fn key_values_have_as_many_numbers_as_the_model_says() {
        assert_eq!(values(3).bytes(), 3 * SHAPE.bytes_per_token());
        assert!(KeyValues::new(&SHAPE, 2, Numbers::Float32(vec![0.0; 17].into())).is_none());
        assert!(KeyValues::new(&SHAPE, 1, Numbers::Bfloat16(vec![bf16::ZERO; 16].into())).is_none());
    }
}
