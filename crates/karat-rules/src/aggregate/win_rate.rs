//! How often a candidate beats the others for the same prompt.
//!
//! `R(y) = mean over y′ ≠ y of P(y ≻ y′)`, with `P` the mean over the members of `σ(r(y) − r(y′))` or of strict
//! comparisons (a tie counts one half) — the reward of direct Nash optimisation, Rosset et al. 2024. It has no arbitrary
//! offset, so members on unlike scales can be combined, and it never forces a total order on preferences that cycle.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape};
use crate::{
    domain::{
        Reward,
        catalogue::{Law, Rule},
    },
    numeric::sigmoid,
};

/// The win rate.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WinRate {
    /// How a member's two scores become a preference.
    preference: Preference,
}

impl Rule for WinRate {
    const NAME: &'static str = "win_rate";
    const SUMMARY: &'static str = "The mean probability of beating the other candidates for the prompt, over the \
        members: free of each member's offset and, with strict comparisons, of its scale. Needs at least two \
        candidates.";
    const FORMULA: &'static str =
        "R(y) = mean over y2 != y and members m of P_m(y > y2), with P = sigmoid(r(y) - r(y2)) or 1, 1/2, 0";
    const SOURCE: &'static str = "Rosset et al. 2024, Direct Nash Optimization: Teaching Language Models to \
        Self-Improve with General Preferences";
    const EXAMPLES: &'static [&'static str] = &[r#"{"preference": "sigmoid"}"#, r#"{"preference": "strict"}"#];
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::Probability];

    type Parameters = Self;
}

/// How a member's two scores become a preference.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Preference {
    /// Bradley and Terry's `σ(r − r′)`; for raw logits.
    Sigmoid,
    /// 1 for the higher score, ½ for a tie; for any scale.
    Strict,
}

impl WinRate {
    fn needs_candidates(count: usize) -> AggregationError {
        AggregationError::unsuitable(
            format!("win_rate compares the candidates for one prompt, and there is {count}"),
            "score at least two candidates together, or choose an aggregation that scores each alone",
        )
    }

    fn prefers(self, first: f64, second: f64) -> f64 {
        match self.preference {
            Preference::Sigmoid => sigmoid(first - second),
            Preference::Strict => match first.partial_cmp(&second) {
                Some(Ordering::Greater) => 1.0,
                Some(Ordering::Less) => 0.0,
                _ => 0.5,
            },
        }
    }
}

impl Aggregation for WinRate {
    fn gives_probabilities(&self, _: bool) -> bool {
        true
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        shape.flat()?;
        if shape.candidates < 2 { Err(Self::needs_candidates(shape.candidates)) } else { Ok(()) }
    }

    fn aggregate(&self, _: &Members) -> Result<Reward, AggregationError> {
        Err(Self::needs_candidates(1))
    }

    fn aggregate_group(&self, candidates: &[Members]) -> Result<Vec<Reward>, AggregationError> {
        let (Some(first), 2..) = (candidates.first(), candidates.len()) else {
            return Err(Self::needs_candidates(candidates.len()));
        };
        let members = first.values().len();
        if candidates.iter().any(|candidate| candidate.values().len() != members) {
            return Err(AggregationError::unsuitable(
                "the candidates have different numbers of members",
                "score all candidates of a prompt with one model",
            ));
        }
        let comparisons = ((candidates.len() - 1) * members) as f64;
        let mut wins = vec![0.0; candidates.len()];
        for one in 0..candidates.len() {
            for other in one + 1..candidates.len() {
                for (a, b) in candidates[one].values().iter().zip(candidates[other].values()) {
                    let preference = self.prefers(*a, *b);
                    wins[one] += preference;
                    wins[other] += 1.0 - preference;
                }
            }
        }
        wins.into_iter().map(|wins| Ok(Reward::new(wins / comparisons)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_close, members, rule},
        *,
    };

    #[test]
    fn members_on_unlike_scales_are_combined() {
        let rule = rule(r#"{"win_rate":{"preference":"strict"}}"#).unwrap();
        let candidates = [members(&[1.0, 500.0]), members(&[2.0, 100.0]), members(&[0.0, 100.0])];
        let rates = rule.aggregate_group(&candidates).unwrap();
        for (rate, expected) in rates.iter().zip([0.75, 0.625, 0.125]) {
            assert_close(rate.get(), expected);
        }
    }

    #[test]
    fn one_candidate_alone_is_refused_when_the_rule_is_read() {
        let rule = rule(r#"{"win_rate":{"preference":"sigmoid"}}"#).unwrap();
        assert!(rule.check(&MembersShape::of(5)).is_err());
        assert!(rule.check(&MembersShape { candidates: 2, ..MembersShape::of(1) }).is_ok());
        assert!(rule.aggregate(&members(&[1.0])).is_err());
        assert!(rule.aggregate_group(&[members(&[1.0]), members(&[1.0, 2.0])]).is_err());
    }
}
