//! From the reward that a model gives to the reward that a trainer should see.
//!
//! Transforms bound what optimisation can gain: a clip caps it, log-sigmoid saturates it, delta stops the farming of
//! process rewards. They apply in the order in which they are written. Each file here is one transform;
//! [`CATALOGUE`] is the list of them, [`Chain`] a checked sequence.
//!
//! A process reward stays a list of steps until a link collapses it (`process_total`, `reduce`); where none does, its
//! one number is the sum over the steps, as in the return of Gao et al. 2024. Links that compare samples act on one
//! number each, so they come after that.

mod affine;
mod chain;
mod clip;
mod clip_then_delta;
mod context;
mod delta;
mod dynamic_scaling;
mod grpo;
mod log_sigmoid;
mod novelty_decay;
mod process_total;
mod rank;
mod reduce;
mod rloo;
mod running_normalise;
mod sigmoid;
mod step_clip;
mod tanh;
mod threshold;
mod z_score;

#[cfg(test)]
mod laws;

use std::fmt;

use crate::domain::{
    NonFinite,
    catalogue::{Catalogue, ChoiceError, Entry},
};

pub use chain::Chain;
pub use context::{Available, Context, ContextError, Needs, References};
pub use running_normalise::Learned;

/// Every transform, in the order of the documentation.
pub const CATALOGUE: Catalogue<dyn Transform> = Catalogue {
    kind: "transform",
    entries: &[
        Entry::of::<clip::Clip>(),
        Entry::of::<affine::Affine>(),
        Entry::of::<z_score::ZScore>(),
        Entry::of::<running_normalise::RunningNormalise>(),
        Entry::of::<tanh::Tanh>(),
        Entry::of::<sigmoid::Sigmoid>(),
        Entry::of::<log_sigmoid::LogSigmoid>(),
        Entry::of::<threshold::Threshold>(),
        Entry::of::<step_clip::StepClip>(),
        Entry::of::<delta::Delta>(),
        Entry::of::<clip_then_delta::ClipThenDelta>(),
        Entry::of::<process_total::ProcessTotal>(),
        Entry::of::<reduce::Reduce>(),
        Entry::of::<dynamic_scaling::DynamicScaling>(),
        Entry::of::<novelty_decay::NoveltyDecay>(),
        Entry::of::<grpo::Grpo>(),
        Entry::of::<rloo::Rloo>(),
        Entry::of::<rank::Rank>(),
    ],
};

/// A reward on its way through a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// One number for the whole response.
    Outcome(f64),
    /// One number for each step of the response, in order, at least one.
    Steps(Vec<f64>),
}

impl Signal {
    /// One number for the whole response: the outcome, or the sum over its steps.
    #[must_use]
    pub fn total(&self) -> f64 {
        match self {
            Self::Outcome(value) => *value,
            Self::Steps(steps) => steps.iter().sum(),
        }
    }

    /// What a policy still earns from each step on: the sum of that step's reward and all later ones.
    #[must_use]
    pub fn returns_to_go(&self) -> Vec<f64> {
        let rewards = self.numbers();
        let mut returns: Vec<f64> = rewards
            .iter()
            .rev()
            .scan(0.0, |sum, reward| {
                *sum += reward;
                Some(*sum)
            })
            .collect();
        returns.reverse();
        returns
    }

    fn numbers(&self) -> &[f64] {
        match self {
            Self::Outcome(value) => std::slice::from_ref(value),
            Self::Steps(steps) => steps,
        }
    }

    fn numbers_mut(&mut self) -> &mut [f64] {
        match self {
            Self::Outcome(value) => std::slice::from_mut(value),
            Self::Steps(steps) => steps,
        }
    }
}

/// What a chain's rewards are between two of its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// One number a response.
    Outcome,
    /// The scores that a process head gave each step.
    StepScores,
    /// Rewards of steps that were derived from neighbouring scores, and are no scores any more.
    StepRewards,
}

impl Stage {
    fn needs_outcome(self) -> Result<Self, String> {
        match self {
            Self::Outcome => Ok(self),
            Self::StepScores | Self::StepRewards => Err(
                "it acts on one number a response, and here there is one a step; put \"process_total\" or \"reduce\" \
                 before it"
                    .to_owned(),
            ),
        }
    }

    fn needs_step_scores(self) -> Result<Self, String> {
        match self {
            Self::StepScores => Ok(self),
            Self::StepRewards => {
                Err("it acts on the scores of a process head, and a link before it already took differences of them; \
                 write \"clip_then_delta\" for both, or \"clip\" for a plain range"
                    .to_owned())
            }
            Self::Outcome => Err("a link before it made one number of the steps; put it before that link".to_owned()),
        }
    }
}

/// A rule that changes rewards.
pub trait Transform: fmt::Debug + Send + Sync {
    /// What the transform must be given beyond numbers.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// What the rewards are after the transform, given what they are before.
    ///
    /// # Errors
    /// When it can't act on them; the text says what to write instead.
    fn stage(&self, before: Stage) -> Result<Stage, String> {
        // Samples are compared by one number each.
        if self.needs().group > 1 { before.needs_outcome() } else { Ok(before) }
    }

    /// Changes the signals of one group: the samples of one prompt, in the order in which `context` speaks of them.
    ///
    /// # Errors
    /// When a signal or the context lacks what [`Transform::needs`] names.
    fn apply(&self, group: &mut [Signal], context: &Context) -> Result<(), Refusal>;

    /// Whether rewards are probabilities, from 0 to 1, after it; `before` says whether they were before it.
    fn gives_probabilities(&self, _before: bool) -> bool {
        false
    }

    /// Whether it holds numbers at a bound, and this is one it holds them at.
    fn holds_at(&self, _value: f64) -> bool {
        false
    }

    /// What it keeps of the rewards that it saw before, where what it does to a reward depends on them.
    fn memory(&self) -> Option<&dyn Memory> {
        None
    }
}

/// What a transform keeps of the rewards that it saw before.
pub trait Memory {
    /// What it has learned.
    fn learned(&self) -> Learned;

    /// Puts something else in its place.
    ///
    /// # Errors
    /// When its numbers are no mean and variance.
    fn replace(&self, learned: Learned) -> Result<(), String>;
}

/// A transform met something that it can't act on; the text says what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A transform of single numbers; it maps an outcome, and each step where there are steps.
pub trait Pointwise: fmt::Debug + Send + Sync {
    /// The image of one number.
    fn map(&self, value: f64) -> f64;

    /// See [`Transform::gives_probabilities`].
    fn gives_probabilities(&self, _before: bool) -> bool {
        false
    }

    /// See [`Transform::holds_at`].
    fn holds_at(&self, _value: f64) -> bool {
        false
    }
}

impl<T: Pointwise> Transform for T {
    fn holds_at(&self, value: f64) -> bool {
        Pointwise::holds_at(self, value)
    }

    fn gives_probabilities(&self, before: bool) -> bool {
        Pointwise::gives_probabilities(self, before)
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        for number in group.iter_mut().flat_map(Signal::numbers_mut) {
            *number = self.map(*number);
        }
        Ok(())
    }
}

/// Why a chain can't be built or applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TransformError {
    /// A transform is unknown or its parameters are wrong.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// A step transform meets a reward without steps.
    #[error(
        "transform {0:?} acts on the steps of a process reward, and this model gives one score a response; remove \
         it, or choose a model with a process head"
    )]
    NoSteps(String),
    /// Links stand in an order that makes no sense.
    #[error("transform {name:?} can't stand here: {reason}")]
    Order {
        /// The transform.
        name: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// A transform lacks something that only a request can bring.
    #[error("transform {name:?} needs {missing}")]
    Missing {
        /// The transform.
        name: String,
        /// What it needs and how to send it.
        missing: String,
    },
    /// A transform met a reward that it can't act on.
    #[error("transform {name:?}: {reason}")]
    Refused {
        /// The transform.
        name: String,
        /// Why.
        reason: String,
    },
    /// A transform's result overflowed.
    #[error("transform {name:?} gave {source}; bound the reward with a clip before it")]
    NonFinite {
        /// The transform.
        name: String,
        /// The number.
        source: NonFinite,
    },
}

impl<R: Transform + 'static> From<R> for Box<dyn Transform> {
    fn from(rule: R) -> Self {
        Box::new(rule)
    }
}

/// The steps of a signal, for transforms that the chain lets meet nothing else.
fn steps(signal: &mut Signal) -> Result<&mut Vec<f64>, Refusal> {
    match signal {
        Signal::Steps(steps) => Ok(steps),
        Signal::Outcome(_) => Err(Refusal("a reward has no steps".to_owned())),
    }
}

/// Changes the steps of every signal, for transforms that the chain lets meet nothing else.
fn each_steps(group: &mut [Signal], change: impl Fn(&mut [f64])) -> Result<(), Refusal> {
    group.iter_mut().try_for_each(|signal| steps(signal).map(|steps| change(steps)))
}

/// The one number of each signal, for transforms that the chain lets meet nothing else.
fn outcomes(group: &[Signal]) -> Result<Vec<f64>, Refusal> {
    group
        .iter()
        .map(|signal| match signal {
            Signal::Outcome(value) => Ok(*value),
            Signal::Steps(_) => Err(Refusal("a reward still has steps".to_owned())),
        })
        .collect()
}

/// Changes the outcomes of a group together, for transforms that the chain lets meet nothing else.
fn each_group(group: &mut [Signal], change: impl Fn(&[f64]) -> Vec<f64>) -> Result<(), Refusal> {
    let changed = change(&outcomes(group)?);
    for (signal, value) in group.iter_mut().zip(changed) {
        *signal = Signal::Outcome(value);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all transforms share.

    use super::*;
    use crate::domain::catalogue::Choice;
    pub(crate) use crate::numeric::testing::assert_all_close;

    pub(crate) fn choices(json: &str) -> Vec<Choice> {
        serde_json::from_str(json).unwrap()
    }

    pub(crate) fn chain(json: &str, steps: bool) -> Result<Chain, TransformError> {
        Chain::build(&choices(json), steps)
    }

    pub(crate) fn outcome(json: &str, value: f64) -> f64 {
        let mut group = [Signal::Outcome(value)];
        chain(json, false).unwrap().apply(&mut group).unwrap();
        group[0].total()
    }

    pub(crate) fn steps(json: &str, values: &[f64]) -> Vec<f64> {
        let mut group = [Signal::Steps(values.to_vec())];
        chain(json, true).unwrap().apply(&mut group).unwrap();
        group[0].numbers().to_vec()
    }

    /// The outcomes of a group, transformed together.
    pub(crate) fn group(json: &str, values: &[f64], context: &Context) -> Result<Vec<f64>, TransformError> {
        let mut signals: Vec<Signal> = values.iter().copied().map(Signal::Outcome).collect();
        let chain = Chain::build_for(&choices(json), &context.available(false, values.len()))?;
        chain.apply_with(&mut signals, context)?;
        Ok(signals.iter().map(Signal::total).collect())
    }

    /// The outcomes of a group, transformed together with nothing beside them.
    pub(crate) fn together(json: &str, values: &[f64]) -> Vec<f64> {
        group(json, values, &Context::default()).unwrap()
    }
}
