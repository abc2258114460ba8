//! The candidates that no other beats in every objective.
//!
//! `i` dominates `j` when every `r_i ≥ r_j` and one is greater (Lee et al. 2024, "Parrot: Pareto-optimal Multi-Reward
//! Reinforcement Learning Framework for Text-to-Image Generation"). Equal candidates don't dominate each other: all stay.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Available, Candidates, Selected, Selection, SelectionError};
use crate::domain::catalogue::Rule;

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pareto {}

impl Rule for Pareto {
    const NAME: &'static str = "pareto";
    const SUMMARY: &'static str = "Every candidate that no other beats in all objectives, in the order of their \
        indices: a choice that no weights have to be made up for. Needs several objectives.";
    const FORMULA: &'static str = "{ i : no j has all r_j >= r_i and one r_j > r_i }";
    const SOURCE: &'static str = "Lee et al. 2024, Parrot: Pareto-optimal Multi-Reward Reinforcement Learning \
        Framework for Text-to-Image Generation";

    type Parameters = Self;
}

const NEEDS_OBJECTIVES: SelectionError =
    SelectionError { rule: Pareto::NAME, missing: Cow::Borrowed("several objectives; use a model that gives them") };

/// Whether each candidate is on the front; `objectives` has one equally long list for each.
#[must_use]
pub fn pareto_front(objectives: &[Vec<f64>]) -> Vec<bool> {
    let dominates = |one: &[f64], other: &[f64]| {
        one.iter().zip(other).all(|(a, b)| a >= b) && one.iter().zip(other).any(|(a, b)| a > b)
    };
    objectives.iter().map(|one| !objectives.iter().any(|other| dominates(other, one))).collect()
}

impl Selection for Pareto {
    fn check(&self, available: &Available) -> Result<(), SelectionError> {
        if available.objectives { Ok(()) } else { Err(NEEDS_OBJECTIVES) }
    }

    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let front = pareto_front(candidates.objectives().ok_or(NEEDS_OBJECTIVES)?);
        Ok(Selected::of((0..front.len()).filter(|index| front[*index]).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{candidates, rule, select},
        *,
    };

    #[test]
    fn golden_g16() {
        let objectives = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 2.0], [2.0, 2.0], [0.0, 4.0]];
        let with = candidates(&[0.0; 6]).with_objectives(objectives.iter().map(|o| o.to_vec()).collect()).unwrap();
        assert_eq!(select("\"pareto\"", &with), [0, 1, 2, 4, 5]);
    }

    #[test]
    fn one_reward_alone_has_no_front() {
        assert!(rule("\"pareto\"").unwrap().check(&Available::default()).is_err());
        assert!(rule("\"pareto\"").unwrap().select(&candidates(&[1.0])).is_err());
    }
}
