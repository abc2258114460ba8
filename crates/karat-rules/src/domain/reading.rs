//! What a head wants to know of a decoder's pass, and the texts that it wants passes over.
//!
//! Most heads read the scores of a graph for the sample itself. Heads that ask a decoder want more: how likely a text is,
//! or which of a few words comes next, for one or several texts made out of a sample. Each such text is a [`Probe`]; once
//! it is tokenised, its [`Reading`] travels with the tokens, so that caches, queues and batches need to know no more.

use std::{ops::Range, sync::Arc};

use super::{Image, Message, Sample};

/// What is read of a decoder's pass over one input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Reading {
    /// The graph's scores, where its head reads them: at the last token, or at the step marks.
    #[default]
    Scores,
    /// The log-probability of each token in this range, given all tokens before it: one number a token. Within the
    /// input, not empty, and not from the first token on, which nothing comes before.
    LogProbabilities(Range<usize>),
    /// The raw logit of each of these tokens, at least one, as the one that follows each place.
    Logits(After, Box<[u32]>),
    /// The trunk's state at the last token.
    LastState,
}

/// After which tokens of an input something is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum After {
    /// After the last one.
    End,
    /// After each one that ends a step.
    Steps,
}

/// A text that a head wants a pass over, and what it wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// How likely each token of the sample's response is.
    Response(Sample),
    /// How likely each token of the last turn is, whoever speaks.
    LastTurn {
        /// What was said, at least one turn.
        turns: Vec<Message>,
        /// The first turn that must stay whole when the text is too long: what is judged, and what is asked about it.
        kept: usize,
    },
    /// The raw logit of each of some words as the first one of the assistant's turn that comes next. Each word must be one
    /// token.
    NextWord {
        /// What was said so far, at least one turn.
        turns: Vec<Message>,
        /// The first turn that must stay whole when the text is too long.
        kept: usize,
        /// The words, at least one, exactly as the model would write them, with a leading space where it writes one.
        words: Arc<[String]>,
    },
    /// The raw logit of a word, which must be one token, as the first one of the assistant's turn that comes after the
    /// sample.
    NextLogit {
        /// A dialogue.
        sample: Sample,
        /// The word, exactly as the model would write it.
        word: String,
    },
    /// The raw logit of each of some words, each one token, at each step of the sample's response.
    Steps {
        /// A dialogue, or text or tokens where a mark ends each step.
        sample: Sample,
        /// The words, at least one, exactly as the model would write them.
        words: Arc<[String]>,
    },
    /// The trunk's state at the end of the sample.
    LastState(Sample),
    /// What a model of texts and images makes of a text by itself.
    Text(String),
    /// What a model of texts and images makes of an image by itself.
    Image(Image),
}
