//! A sample after tokenisation: what a graph is fed and what a cache compares.

use std::ops::Range;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Pixels, Reading};

/// How many tokens a truncation policy removed. Both zero when nothing was cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct Cut {
    /// Tokens removed from the prompt.
    pub prompt_tokens: usize,
    /// Tokens removed from the response.
    pub response_tokens: usize,
}

impl Cut {
    /// Whether anything was removed.
    #[must_use]
    pub fn is_cut(self) -> bool {
        self.prompt_tokens + self.response_tokens > 0
    }
}

/// The token ids of one sample, special tokens included, never padded; or an image, with tokens that stand for it.
///
/// Invariants: at least one token; as many type ids as ids; `response` lies within the tokens; step marks ascend within
/// the tokens; offsets, where known, are one a token of the response; the gate and what is read lie within the tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenizedInput {
    ids: Box<[u32]>,
    type_ids: Box<[u32]>,
    response: Range<usize>,
    cut: Cut,
    steps: Box<[usize]>,
    offsets: Option<Box<[Range<usize>]>>,
    gate: Option<usize>,
    reading: Reading,
    pixels: Option<Pixels>,
}

impl TokenizedInput {
    /// The memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.ids)
            + size_of_val(&*self.type_ids)
            + size_of_val(&*self.steps)
            + self.offsets.as_deref().map_or(0, size_of_val)
            + self.pixels.as_ref().map_or(0, |pixels| pixels.values().len())
    }

    /// Builds an input; `None` when an invariant doesn't hold.
    #[must_use]
    pub fn new(ids: Vec<u32>, type_ids: Vec<u32>, response: Range<usize>, cut: Cut) -> Option<Self> {
        let sound = !ids.is_empty()
            && ids.len() == type_ids.len()
            && response.start <= response.end
            && response.end <= ids.len();
        sound.then(|| Self {
            ids: ids.into(),
            type_ids: type_ids.into(),
            response,
            cut,
            steps: Box::default(),
            offsets: None,
            gate: None,
            reading: Reading::Scores,
            pixels: None,
        })
    }

    /// The input of a model that sees: an image, which stands for so many tokens. `None` when that is none.
    ///
    /// Queues, batches and budgets count tokens, and go on doing so: what an image costs is how many it stands for.
    #[must_use]
    pub fn of_image(pixels: Pixels, tokens: usize) -> Option<Self> {
        let input = Self::new(vec![0; tokens], vec![0; tokens], 0..tokens, Cut::default())?;
        Some(Self { pixels: Some(pixels), ..input })
    }

    /// The image that the tokens stand for, if they stand for one.
    #[must_use]
    pub fn pixels(&self) -> Option<&Pixels> {
        self.pixels.as_ref()
    }

    /// The same input, to be recognised and not to be computed with: equal to it, and without the values of its pixels.
    #[must_use]
    pub fn remembered(&self) -> Self {
        Self { pixels: self.pixels.as_ref().map(Pixels::remembered), ..self.clone() }
    }

    /// Adds the positions of the step marks: the tokens at which a process head reads a step's score. `None` unless
    /// they ascend strictly and lie within the tokens.
    #[must_use]
    pub fn with_steps(mut self, steps: Vec<usize>) -> Option<Self> {
        let sound = steps.is_sorted_by(|a, b| a < b) && steps.last().is_none_or(|last| *last < self.ids.len());
        self.steps = steps.into();
        sound.then_some(self)
    }

    /// Adds which characters of the response each of its tokens stands for, counted in Unicode scalar values from the
    /// response's start. A token without text of its own, such as a special token, has an empty range. `None` unless
    /// there is one range for each token of the response, none of them reversed.
    #[must_use]
    pub fn with_offsets(mut self, offsets: Vec<Range<usize>>) -> Option<Self> {
        let sound = offsets.len() == self.response.len() && offsets.iter().all(|range| range.start <= range.end);
        self.offsets = Some(offsets.into());
        sound.then_some(self)
    }

    /// Adds the token at which the weights of a gated head are read: the second of its outputs. `None` unless it lies
    /// within the tokens.
    #[must_use]
    pub fn with_gate(mut self, gate: usize) -> Option<Self> {
        self.gate = Some(gate);
        (gate < self.ids.len()).then_some(self)
    }

    /// Says what is read of a decoder's pass over it. `None` when a range is empty, reaches beyond the tokens or begins
    /// at the first one, or when there are no tokens to choose from.
    #[must_use]
    pub fn with_reading(mut self, reading: Reading) -> Option<Self> {
        let sound = match &reading {
            Reading::Scores | Reading::LastState => true,
            Reading::LogProbabilities(range) => range.start > 0 && range.start < range.end && range.end <= self.len(),
            Reading::Logits(_, ids) => !ids.is_empty(),
        };
        self.reading = reading;
        sound.then_some(self)
    }

    /// What is read of a decoder's pass over it.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The positions of the step marks, ascending; empty where none were sought or found.
    #[must_use]
    pub fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// The token at which the weights of a gated head are read, where that is another than the score's.
    #[must_use]
    pub fn gate(&self) -> Option<usize> {
        self.gate
    }

    /// The characters of the response that each of its tokens stands for, where they are known.
    #[must_use]
    pub fn offsets(&self) -> Option<&[Range<usize>]> {
        self.offsets.as_deref()
    }

    /// The token ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Which segment each token belongs to: 0 for the first text, 1 for the second of a sentence pair.
    #[must_use]
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// The tokens of the response; the whole text where prompt and response can't be told apart.
    #[must_use]
    pub fn response(&self) -> Range<usize> {
        self.response.clone()
    }

    /// What truncation removed.
    #[must_use]
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// The number of tokens, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an input is never empty")]
    pub fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::After, *};

    #[test]
    fn marks_and_offsets_must_fit_the_tokens() {
        let input = TokenizedInput::new(vec![1, 2, 3], vec![0; 3], 1..3, Cut::default()).unwrap();
        assert!(input.clone().with_steps(vec![0, 2]).is_some());
        for bad in [vec![2, 0], vec![1, 1], vec![3]] {
            assert!(input.clone().with_steps(bad).is_none());
        }
        assert!(input.clone().with_offsets(vec![0..2, 2..2]).is_some());
        assert!(input.clone().with_offsets(std::iter::once(0..2).collect()).is_none());
        let (start, end) = (2, 1);
        assert!(input.clone().with_offsets(vec![0..1, start..end]).is_none());
        assert_eq!(input.clone().with_gate(2).and_then(|input| input.gate()), Some(2));
        assert!(input.with_gate(3).is_none());
    }

    #[test]
    fn what_is_read_lies_within_the_tokens() {
        let input = TokenizedInput::new(vec![1, 2, 3], vec![0; 3], 1..3, Cut::default()).unwrap();
        for good in [Reading::LogProbabilities(1..3), Reading::Logits(After::End, [7].into()), Reading::LastState] {
            assert_eq!(input.clone().with_reading(good.clone()).unwrap().reading(), &good);
        }
        for bad in [0..2, 1..4, 2..2].map(Reading::LogProbabilities) {
            assert_eq!(input.clone().with_reading(bad), None);
        }
        assert_eq!(input.with_reading(Reading::Logits(After::End, Box::default())), None);
    }
}
