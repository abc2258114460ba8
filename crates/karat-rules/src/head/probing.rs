//! Heads that ask a decoder: several passes a sample, and what is made of them.
//!
//! A head that asks how likely a text is, or which word comes next, turns each sample into [`Probe`]s. The text layer
//! renders and tokenises them, the runtime runs and reads them like any other input, so that batches, caches and shared
//! prefixes serve them unchanged, and the head combines what was read into one score.

use std::fmt;

use super::{Axis, Head, HeadError, HeadOutput, HeadShape, Layout, TokenReward, finite};
use crate::domain::{Conversation, Message, Pair, Probe, Reading, RowTensor, Sample, TokenizedInput, catalogue::Named};

/// A head that asks a decoder: which texts it asks about, and what it makes of the answers.
pub trait Probing: Named + fmt::Debug + Send + Sync {
    /// The texts that a sample becomes; at least one, as many for every sample of a shape. Words whose logits are read are
    /// the same for every sample: a graph may compute no others.
    ///
    /// # Errors
    /// When the sample has another shape than the head needs.
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError>;

    /// A sample to try the head with when its model is loaded, before any client sends one.
    fn example(&self) -> Sample {
        let turn = Sample::from_prompt("Warm up.".to_owned(), "All is warm.".to_owned());
        // Neither text is blank.
        turn.unwrap_or(Sample::Tokens(vec![0]))
    }

    /// How many graphs each probe is run through for one score; more than one for heads that compare two models.
    fn graphs(&self) -> usize {
        1
    }

    /// Which of a decoder's outputs is read.
    fn reads(&self) -> DecoderOutput {
        DecoderOutput::Logits
    }

    /// What the scores will be like, as [`Head::shape`].
    fn gives(&self) -> HeadShape {
        HeadShape::of(1)
    }

    /// Reads one pass over one probe, as [`Head::read`].
    ///
    /// # Errors
    /// When the pass isn't what was asked for, or a number is not finite.
    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError>;

    /// Whether every score is a probability, from 0 to 1.
    fn gives_probabilities(&self) -> bool {
        false
    }

    /// Makes one output of what each graph (outer) read of each probe (inner); of a single reading, that one.
    ///
    /// # Errors
    /// When the readings don't fit each other, or a number overflows.
    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        match of_one_graph(self.name(), readings)? {
            [reading] => Ok((*reading).clone()),
            _ => Err(unexpected(self.name())),
        }
    }
}

impl<P: Probing> Head for P {
    /// One number for each token of the vocabulary, or of the trunk's state, from the graph; from a pass, one for each
    /// that was asked for.
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout(vec![Axis::AtLeast(1)])]]
    }

    fn shape(&self) -> HeadShape {
        self.gives()
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        self.read_pass(input, rows)
    }

    fn probing(&self) -> Option<&dyn Probing> {
        Some(self)
    }

    fn gives_probabilities(&self) -> bool {
        Probing::gives_probabilities(self)
    }

    fn gives_embedding(&self) -> bool {
        self.reads() == DecoderOutput::Hidden
    }
}

/// An output of a decoder graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderOutput {
    /// `scores [M, K]`: what reward heads read.
    Scores,
    /// `logits [M, V]`: one number for each token of the vocabulary.
    Logits,
    /// `hidden [M, H]`: the trunk's state after its last norm.
    Hidden,
    /// What graphs of texts and of images give for a whole input, in one space: no decoder's.
    Embeddings,
}

impl DecoderOutput {
    /// Its name in the graph, unless the manifest says otherwise.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scores => "scores",
            Self::Logits => "logits",
            Self::Hidden => "hidden",
            Self::Embeddings => "embeddings",
        }
    }
}

/// Why a sample can't be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A single response was sent to a judge of pairs.
    #[error("this model says which of two responses is better; send pairs to POST /v1/compare")]
    WantsPair,
    /// A pair was sent to a model of single responses.
    #[error("this model scores one response at a time; send each response as an input of its own")]
    WantsOne,
    /// The head adds turns, or changes the prompt, and the sample is text or tokens.
    #[error(
        "this model's head adds turns to the dialogue or changes its prompt, so it needs the messages and not text that \
         is rendered already; send {{\"prompt\", \"response\"}} or {{\"messages\"}}"
    )]
    WantsTurns,
    /// No user's turn goes before the response.
    #[error("no user's turn goes before the response, and this model's head changes that prompt; send a prompt")]
    WantsPrompt,
    /// An image was sent to a model of texts.
    #[error("this model reads text and sees no images; send the response as text, or choose a model that takes images")]
    SeesNothing,
    /// Text was sent to a model that rates images.
    #[error(
        "this model rates images; send {{\"prompt\", \"image\"}}, or messages whose assistant's turn is an image part"
    )]
    WantsImage,
    /// No text goes with the image.
    #[error("this model compares an image with the text that it was made for; send it as \"prompt\"")]
    WantsText,
    /// No image goes before the one that is rated.
    #[error(
        "this model compares an image with those that it should be like; send them as \"reference_images\", or as image parts of \
         the user's turn"
    )]
    WantsReferences,
    /// Images go before the one that is rated, and nothing is made of them.
    #[error("this model compares an image with no other one; leave out the reference images")]
    NoReferences,
}

/// The dialogue of a sample that has one.
pub(super) fn dialogue(sample: &Sample) -> Result<&Conversation, ProbeError> {
    match sample {
        Sample::Conversation(conversation) => Ok(conversation),
        Sample::Text(_) | Sample::Tokens(_) => Err(ProbeError::WantsTurns),
        Sample::Pair(_) => Err(ProbeError::WantsOne),
        Sample::Picture(_) => Err(ProbeError::SeesNothing),
    }
}

/// The pair of a sample that is one.
pub(super) fn pair(sample: &Sample) -> Result<&Pair, ProbeError> {
    match sample {
        Sample::Pair(pair) => Ok(pair),
        _ => Err(ProbeError::WantsPair),
    }
}

/// A sample of one response.
pub(super) fn single(sample: &Sample) -> Result<Sample, ProbeError> {
    match sample {
        Sample::Pair(_) => Err(ProbeError::WantsOne),
        Sample::Picture(_) => Err(ProbeError::SeesNothing),
        one => Ok(one.clone()),
    }
}

/// Turns with one more by the user.
pub(super) fn with_user_turn(turns: &[Message], content: String) -> Vec<Message> {
    let mut turns = turns.to_vec();
    turns.push(Message { role: crate::domain::Role::User, content });
    turns
}

/// The log-probabilities that were read of one input, of the tokens in the range that was asked for.
pub(super) fn log_probabilities(head: &str, input: &TokenizedInput, rows: &[RowTensor]) -> Result<Vec<f64>, HeadError> {
    let wanted = match input.reading() {
        Reading::LogProbabilities(range) => range.len(),
        Reading::Scores | Reading::LastState | Reading::Logits(..) => 0,
    };
    match rows {
        [row] if wanted > 0 && row.values().len() == wanted => finite(row.values()),
        _ => {
            let shapes: Vec<_> = rows.iter().map(RowTensor::shape).collect();
            Err(HeadError::mismatch(
                format!("a pass returned shapes {shapes:?} where {wanted} log-probabilities were asked for"),
                format!("the {head} head needs a decoder graph with an output \"logits\""),
            ))
        }
    }
}

/// The tokens that were read, each with its reward.
pub(super) fn token_rewards(input: &TokenizedInput, rewards: Vec<f64>) -> Vec<TokenReward> {
    let first = match input.reading() {
        Reading::LogProbabilities(range) => range.start,
        _ => input.response().start,
    };
    let response = input.response();
    let text = |position: usize| {
        let index = position.checked_sub(response.start)?;
        input.offsets()?.get(index).cloned()
    };
    let tokens = rewards.into_iter().enumerate().map(|(index, reward)| {
        let position = first + index;
        TokenReward { position, text: text(position), reward, weights: None }
    });
    tokens.collect()
}

/// What the one graph of a head read of each probe.
pub(super) fn of_one_graph<'a>(
    head: &str,
    readings: &'a [Vec<&'a HeadOutput>],
) -> Result<&'a [&'a HeadOutput], HeadError> {
    match readings {
        [probes] => Ok(probes),
        _ => Err(unexpected(head)),
    }
}

/// The tokens' rewards of a reading, or that a head got what it never made.
pub(super) fn tokens_of<'a>(head: &str, reading: &'a HeadOutput) -> Result<&'a [TokenReward], HeadError> {
    match reading {
        HeadOutput::Tokens { tokens, .. } => Ok(tokens),
        _ => Err(unexpected(head)),
    }
}

/// Each token with the reward that `of` makes of the difference of its two, and those rewards alone; both readings have
/// the same tokens.
pub(super) fn differences(
    ours: &[TokenReward],
    theirs: &[TokenReward],
    of: impl Fn(f64) -> f64,
) -> (Vec<TokenReward>, Vec<f64>) {
    let rewards: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| of(ours.reward - theirs.reward)).collect();
    let tokens = ours.iter().zip(&rewards).map(|(token, reward)| TokenReward { reward: *reward, ..token.clone() });
    (tokens.collect(), rewards)
}

/// That a head got readings which it never made.
pub(super) fn unexpected(head: &str) -> HeadError {
    HeadError::mismatch(format!("the {head} head was given readings that aren't its own"), "report this as a bug")
}
