//! What was decided of a checkpoint: what its manifest and its reasons are written from.

use crate::{graphs::Graph, normalise::Normalisation};

/// What was decided of a checkpoint.
pub(crate) struct Decided {
    pub(crate) graph: Graph,
    pub(crate) reads: Reads,
    /// How many numbers the head gives.
    pub(crate) width: usize,
    /// The most tokens for which the graph is exact.
    pub(crate) context: usize,
    pub(crate) vocabulary: usize,
    /// How rewards are normalised, where they are.
    pub(crate) normalise: Option<Normalisation>,
    /// Whose weights stand where, if the head has some.
    pub(crate) gating: Option<Gating>,
    /// The token that every sample has to end with.
    pub(crate) last_token: Option<String>,
}

/// Where the weights of a head's objectives are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gating {
    /// Where the score is read.
    AtScore,
    /// At a mark in the text; the one that the authors' code looks for, where it is known.
    AtMark(Option<&'static str>),
}

impl Decided {
    /// Of an encoder.
    pub(crate) fn of_pairs(graph: Graph, width: usize, context: usize, vocabulary: usize) -> Self {
        Self { graph, reads: Reads::Pairs, width, context, vocabulary, normalise: None, gating: None, last_token: None }
    }
}

/// What a model reads, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A score after a dialogue.
    Scores,
    /// A score at each step's mark.
    Steps,
    /// The logits of the next token.
    Logits,
    /// A score of a pair of texts.
    Pairs,
}
