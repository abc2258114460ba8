//! From what a graph returns for one sample to scores.
//!
//! A head says which output shapes it can read, checks them against the graph when a model is loaded, and turns one
//! sample's [`RowTensor`]s into a [`HeadOutput`]. Each file here is one head; [`CATALOGUE`] is the list of them.
//!
//! Heads that ask a decoder want several passes a sample, or log-probabilities instead of scores: those are
//! [`Probing`] as well.

mod attributes;
mod classifier;
mod contrastive;
mod embedding;
mod features;
mod follow_up;
mod gaussian;
mod implicit;
mod judge;
mod layout;
mod likeness;
mod log_probability;
mod logit;
mod multi;
mod output;
mod pairwise;
mod parameters;
mod probing;
mod process;
mod quantile;
mod scalar;
mod segment;
mod step_tokens;
mod token;

#[cfg(test)]
mod laws;

use std::{fmt, sync::Arc};

use crate::{
    domain::{
        NonFinite, Reward, RowTensor, TensorSpec, TokenizedInput,
        catalogue::{Catalogue, Entry, Named},
    },
    numeric::ReductionError,
};

pub use layout::{Axis, Layout};
pub use output::{HeadOutput, TokenReward, TokenWeights};
pub use probing::{DecoderOutput, ProbeError, Probing};

/// Every head, in the order of the documentation.
pub const CATALOGUE: Catalogue<dyn Head> = Catalogue {
    kind: "head",
    entries: &[
        Entry::of::<scalar::Scalar>(),
        Entry::of::<multi::Multi>(),
        Entry::of::<gaussian::Gaussian>(),
        Entry::of::<quantile::Quantile>(),
        Entry::of::<classifier::Classifier>(),
        Entry::of::<attributes::Attributes>(),
        Entry::of::<features::Features>(),
        Entry::of::<token::Token>(),
        Entry::of::<process::Process>(),
        Entry::of::<segment::Segment>(),
        Entry::of::<pairwise::Pairwise>(),
        Entry::of::<log_probability::LogProbability>(),
        Entry::of::<implicit::Implicit>(),
        Entry::of::<follow_up::FollowUp>(),
        Entry::of::<contrastive::Contrastive>(),
        Entry::of::<judge::Judge>(),
        Entry::of::<logit::Logit>(),
        Entry::of::<embedding::Embedding>(),
        Entry::of::<likeness::Likeness>(),
    ],
};

/// Reads scores out of a graph's outputs.
pub trait Head: Named + fmt::Debug + Send + Sync {
    /// Every set of outputs that the head can read; a graph must offer one of them.
    fn layouts(&self) -> Vec<Vec<Layout>>;

    /// What the scores will be like; known before anything is scored.
    fn shape(&self) -> HeadShape {
        HeadShape::of(1)
    }

    /// What to write in the manifest when `output` doesn't fit, where the head can tell.
    fn advice(&self, _output: &TensorSpec) -> Option<String> {
        None
    }

    /// Checks the outputs that the manifest names, in its order, batch axis included.
    ///
    /// # Errors
    /// What was found and what the head needs instead.
    fn check(&self, outputs: &[&TensorSpec]) -> Result<(), HeadError> {
        layout::check(self.name(), &self.layouts(), outputs, |output| self.advice(output))
    }

    /// Reads the scores of one sample; `rows` are in the order of the outputs that were checked.
    ///
    /// # Errors
    /// When a logit is not finite, a shape differs from what was promised, or the input lacks marks that the head
    /// reads at.
    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError>;

    /// What the head does beyond reading one pass over the sample itself, if anything.
    fn probing(&self) -> Option<&dyn Probing> {
        None
    }

    /// Whether the head gives a vector that tells responses apart.
    fn gives_embedding(&self) -> bool {
        false
    }

    /// Whether the head's second output holds weights, which a model may read at a token of its own.
    fn reads_gate(&self) -> bool {
        false
    }

    /// Whether every score is a probability, from 0 to 1: then nobody needs to make one of it.
    fn gives_probabilities(&self) -> bool {
        false
    }

    /// Whether the head gives step scores.
    fn gives_steps(&self) -> bool {
        self.shape().steps
    }
}

/// What a head's scores will be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadShape {
    /// How many scores a sample gets, for each objective where there are several.
    pub members: usize,
    /// Whether each score has a deviation of its own.
    pub deviations: bool,
    /// The names of the objectives that are left for an aggregation to combine.
    pub objectives: Option<Arc<[String]>>,
    /// Whether there is a score for each step.
    pub steps: bool,
    /// Whether there is a score for each token.
    pub tokens: bool,
    /// Whether a sample is a pair of responses, and its score the preference for the first.
    pub pairs: bool,
}

impl HeadShape {
    /// Plain scores of single responses: no deviations, objectives, steps or tokens.
    #[must_use]
    pub fn of(members: usize) -> Self {
        Self { members, deviations: false, objectives: None, steps: false, tokens: false, pairs: false }
    }

    /// One score, and one for each token.
    #[must_use]
    pub fn by_token() -> Self {
        Self { tokens: true, ..Self::of(1) }
    }

    /// One score, and one for each step.
    #[must_use]
    pub fn by_step() -> Self {
        Self { steps: true, ..Self::of(1) }
    }
}

/// Why a head can't read a graph's output.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// The graph doesn't fit the head.
    #[error("{found}; {wanted}")]
    Mismatch {
        /// What the graph has.
        found: String,
        /// What to write or export instead.
        wanted: String,
    },
    /// The model computed something that is no number.
    #[error("the model returned {} where a finite number should be", .0.0)]
    NonFinite(#[from] NonFinite),
    /// One of several numbers is none: those of an ensemble's members, or of several objectives.
    #[error("the model returned {} as number {place} of {count}, all of which should be finite", .found.0)]
    OneNonFinite {
        /// Which one, counted from 1.
        place: usize,
        /// How many there are.
        count: usize,
        /// What was found.
        found: NonFinite,
    },
    /// The model computed a spread below zero.
    #[error(
        "the model returned {0} as a deviation or variance, which can't be negative; name its parametrisation in head.gaussian.spread"
    )]
    NegativeSpread(f64),
    /// The input has no mark at which a step or segment is read.
    #[error("the response has no step marks; separate its steps as the model's manifest says, or send them as a list")]
    NoSteps,
    /// Every token of the response is special or ignored.
    #[error("the response has no tokens of its own to score; send a response with text")]
    NoTokens,
    /// The steps can't be reduced to one number.
    #[error(transparent)]
    Reduction(#[from] ReductionError),
}

impl HeadError {
    fn mismatch(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::Mismatch { found: found.into(), wanted: wanted.into() }
    }
}

/// Finite rewards out of the numbers of a row.
fn rewards(values: &[f32]) -> Result<Vec<Reward>, HeadError> {
    let count = values.len();
    let reward = |(index, value): (usize, &f32)| {
        Reward::new(f64::from(*value)).map_err(|found| match count {
            1 => HeadError::NonFinite(found),
            _ => HeadError::OneNonFinite { place: index + 1, count, found },
        })
    };
    values.iter().enumerate().map(reward).collect()
}

/// Finite numbers out of those of a row.
fn finite(values: &[f32]) -> Result<Vec<f64>, HeadError> {
    Ok(rewards(values)?.into_iter().map(Reward::get).collect())
}

impl<R: Head + 'static> From<R> for Box<dyn Head> {
    fn from(rule: R) -> Self {
        Box::new(rule)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all heads share.

    use super::*;
    use std::ops::Range;

    use crate::domain::{After, Cut, Dimension, ElementType, Reading};

    pub(crate) fn head(json: &str) -> Result<Box<dyn Head>, String> {
        CATALOGUE.read(json)
    }

    /// An output with a batch axis; 0 stands for an axis as long as the input.
    pub(crate) fn output(shape: &[usize]) -> TensorSpec {
        let dynamic = |name: &str| Dimension::Dynamic(name.to_owned());
        let rest = shape.iter().map(|size| if *size == 0 { dynamic("sequence") } else { Dimension::Fixed(*size) });
        TensorSpec {
            name: "logits".to_owned(),
            element: ElementType::Float32,
            shape: std::iter::once(dynamic("batch")).chain(rest).collect(),
        }
    }

    /// An input of `tokens` tokens that is all response.
    pub(crate) fn input(tokens: usize) -> TokenizedInput {
        TokenizedInput::new(vec![7; tokens], vec![0; tokens], 0..tokens, Cut::default()).unwrap()
    }

    /// An input of `tokens` tokens of which the log-probabilities of a range are read.
    pub(crate) fn likely(tokens: usize, range: Range<usize>) -> TokenizedInput {
        input(tokens).with_reading(Reading::LogProbabilities(range)).unwrap()
    }

    /// An input after which the logits of `choices` tokens are read.
    pub(crate) fn choosing(choices: usize) -> TokenizedInput {
        input(1).with_reading(Reading::Logits(After::End, (0..choices as u32).collect())).unwrap()
    }

    pub(crate) fn row(shape: &[usize], values: &[f32]) -> RowTensor {
        RowTensor::new(shape.to_vec(), values.to_vec()).unwrap()
    }

    pub(crate) fn numbers(rewards: &[Reward]) -> Vec<f64> {
        rewards.iter().map(|reward| reward.get()).collect()
    }
}
