//! From the rewards of a prompt's candidates to the ones to keep.
//!
//! Best-of-N and what goes with it: rankings with margins, the expected reward at every smaller N, fronts for several
//! objectives, sampling, votes and tie-breaks. Candidates are known by their index, never by their text: equal responses
//! keep their own places, and ties go to the lowest index unless a rule says otherwise. [`CATALOGUE`] is
//! the list of the rules.

mod best_of_n;
mod candidates;
mod curve;
mod diverse;
mod majority_vote;
mod minimum_score;
mod novelty;
mod pareto;
mod ranking;
mod soft;

#[cfg(test)]
mod laws;

use std::{borrow::Cow, fmt};

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::catalogue::{Catalogue, Entry};

pub use candidates::{Available, Candidates, CandidatesError};
pub use curve::{CurvePoint, best_of_n_curve};
pub use pareto::pareto_front;
pub use ranking::{Placement, Ranking};

/// Every selection rule, in the order of the documentation.
pub const CATALOGUE: Catalogue<dyn Selection> = Catalogue {
    kind: "selection",
    entries: &[
        Entry::of::<best_of_n::BestOfN>(),
        Entry::of::<soft::Soft>(),
        Entry::of::<minimum_score::MinimumScore>(),
        Entry::of::<majority_vote::MajorityVote>(),
        Entry::of::<diverse::Diverse>(),
        Entry::of::<pareto::Pareto>(),
    ],
};

/// A rule that picks candidates.
pub trait Selection: fmt::Debug + Send + Sync {
    /// Whether the rule can act on what a request offers; asked when it is read.
    ///
    /// # Errors
    /// What is missing and how to send it.
    fn check(&self, _available: &Available) -> Result<(), SelectionError> {
        Ok(())
    }

    /// Picks candidates.
    ///
    /// # Errors
    /// When they lack what [`Selection::check`] asks for.
    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError>;
}

impl<R: Selection + 'static> From<R> for Box<dyn Selection> {
    fn from(rule: R) -> Self {
        Box::new(rule)
    }
}

/// What a rule picked.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Selected {
    /// The candidates' indices, the most wanted first; empty when none is good enough.
    pub indices: Vec<usize>,
    /// The probability with which each candidate would have been picked first, where chance decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f64>>,
}

impl Selected {
    fn of(indices: Vec<usize>) -> Self {
        Self { indices, probabilities: None }
    }
}

/// Why a rule can't pick.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selection {rule:?} needs {missing}")]
pub struct SelectionError {
    /// The rule.
    pub rule: &'static str,
    /// What it needs and how to send it.
    pub missing: Cow<'static, str>,
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all selection rules share.

    use super::*;
    use crate::domain::Reward;

    pub(crate) fn candidates(rewards: &[f64]) -> Candidates {
        let rewards: Vec<Reward> = rewards.iter().map(|reward| Reward::new(*reward).unwrap()).collect();
        Candidates::new(&rewards).unwrap()
    }

    pub(crate) fn rule(json: &str) -> Result<Box<dyn Selection>, String> {
        CATALOGUE.read(json)
    }

    pub(crate) fn select(json: &str, candidates: &Candidates) -> Vec<usize> {
        rule(json).unwrap().select(candidates).unwrap().indices
    }
}
