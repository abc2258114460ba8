//! From the scores of an ensemble's members to one reward.
//!
//! A reward model that is optimised against is hacked where it errs. Members that were trained apart err in
//! different places, so their disagreement tells where not to trust them (Coste et al. 2023, "Reward Model
//! Ensembles Help Mitigate Overoptimization"). Each file here is one rule; [`CATALOGUE`] is the list of them.
//!
//! A rule is checked against the [`MembersShape`] when a manifest or request is read, so that one that could never
//! apply (a sample variance of one member, weights for the wrong number of members) is refused there.

mod brme;
mod confidence_bound;
mod confidence_weighted;
mod cvar;
mod harmonic;
mod log_sigmoid_and;
mod mean;
mod median;
mod members;
mod nested;
mod per_member;
mod quantile;
mod sum;
mod trimmed_mean;
mod uncertainty_weighted;
mod weighted;
mod win_rate;
mod worst_case;

#[cfg(test)]
mod laws;

use std::fmt;

use crate::domain::{
    NonFinite, Reward,
    catalogue::{Catalogue, Entry},
};

pub use confidence_weighted::confidence;
pub use members::{Members, MembersShape};

/// Every aggregation, in the order of the documentation.
pub const CATALOGUE: Catalogue<dyn Aggregation> = Catalogue {
    kind: "aggregation",
    entries: &[
        Entry::of::<mean::Mean>(),
        Entry::of::<worst_case::WorstCase>(),
        Entry::of::<uncertainty_weighted::UncertaintyWeighted>(),
        Entry::of::<confidence_bound::ConfidenceBound>(),
        Entry::of::<brme::Brme>(),
        Entry::of::<median::Median>(),
        Entry::of::<trimmed_mean::TrimmedMean>(),
        Entry::of::<quantile::Quantile>(),
        Entry::of::<cvar::Cvar>(),
        Entry::of::<weighted::Weighted>(),
        Entry::of::<sum::Sum>(),
        Entry::of::<log_sigmoid_and::LogSigmoidAnd>(),
        Entry::of::<harmonic::Harmonic>(),
        Entry::of::<confidence_weighted::ConfidenceWeighted>(),
        Entry::of::<win_rate::WinRate>(),
        Entry::of::<nested::Nested>(),
    ],
};

/// A rule that turns the members' scores into one.
pub trait Aggregation: fmt::Debug + Send + Sync {
    /// Whether the rule can apply to members of this shape; asked when a manifest or request is read.
    ///
    /// # Errors
    /// What is there and what to write instead.
    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        shape.flat().map(|_| ())
    }

    /// Computes the one score of one sample, on the members' own scale unless the rule says otherwise.
    ///
    /// # Errors
    /// When the result is not finite, or the rule needs something that these members lack.
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError>;

    /// Computes the scores of all candidates for one prompt, in their order. Only a rule that compares candidates
    /// differs from scoring each alone.
    ///
    /// # Errors
    /// As [`Aggregation::aggregate`].
    fn aggregate_group(&self, candidates: &[Members]) -> Result<Vec<Reward>, AggregationError> {
        candidates.iter().map(|members| self.aggregate(members)).collect()
    }

    /// Whether the score is a probability, from 0 to 1; `before` says whether every member's is. True of most rules if of the
    /// members: a mean, a median or a worst case lies among them.
    fn gives_probabilities(&self, before: bool) -> bool {
        before
    }

    /// Whether the rule looks at [`Members::sensitivity`].
    fn needs_sensitivity(&self) -> bool {
        false
    }

    /// The score of each named objective, in order, before they become one; empty where there are none.
    ///
    /// # Errors
    /// As [`Aggregation::aggregate`].
    fn by_objective(&self, members: &Members) -> Result<Vec<Reward>, AggregationError> {
        match members.objectives() {
            Some(_) => members.values().iter().map(|value| Ok(Reward::new(*value)?)).collect(),
            None => Ok(Vec::new()),
        }
    }
}

impl<R: Aggregation + 'static> From<R> for Box<dyn Aggregation> {
    fn from(rule: R) -> Self {
        Box::new(rule)
    }
}

/// Why members could not be aggregated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AggregationError {
    /// The result overflowed.
    #[error("the aggregate of the members is not finite: {0}")]
    NonFinite(#[from] NonFinite),
    /// The rule can't apply to such members.
    #[error("{found}; {wanted}")]
    Unsuitable {
        /// What there is.
        found: String,
        /// What to write instead.
        wanted: String,
    },
    /// A member's score lies outside the range for which the rule is defined.
    #[error(
        "a member scored {value}, and the rule is defined from {lowest} to {highest}; choose another aggregation, or \
         a transform of the members that bounds them"
    )]
    OutOfRange {
        /// The score.
        value: f64,
        /// The lowest that the rule takes.
        lowest: f64,
        /// The highest that the rule takes.
        highest: f64,
    },
}

impl AggregationError {
    fn unsuitable(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::Unsuitable { found: found.into(), wanted: wanted.into() }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all aggregations share.

    use super::*;

    pub(crate) use crate::numeric::testing::assert_close;

    pub(crate) fn members(values: &[f64]) -> Members {
        Members::from_values(values.to_vec()).unwrap()
    }

    pub(crate) fn rule(choice: &str) -> Result<Box<dyn Aggregation>, String> {
        CATALOGUE.read(choice)
    }

    pub(crate) fn aggregate(choice: &str, values: &[f64]) -> f64 {
        rule(choice).unwrap().aggregate(&members(values)).unwrap().get()
    }
}
