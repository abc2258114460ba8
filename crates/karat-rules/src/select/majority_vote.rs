//! The most common answer among the candidates that tie for the best.
//!
//! RewardMATH (Kim et al. 2024, "Evaluating Robustness of Reward Models for Mathematical Reasoning") settles ties of
//! best-of-n by a majority vote over the tied candidates' final answers. Equal votes go to the answer that comes first.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Available, Candidates, Selected, Selection, SelectionError};
use crate::domain::{NotNegative, catalogue::Rule};

/// The vote.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MajorityVote {
    /// How far below the best a reward still ties, at least 0.
    #[serde(default)]
    tolerance: NotNegative,
}

impl Rule for MajorityVote {
    const NAME: &'static str = "majority_vote";
    const SUMMARY: &'static str = "Among the candidates that tie for the best reward, the first with the most common \
        final answer. Needs each candidate's answer.";
    const FORMULA: &'static str = "the first tied i whose answer most tied candidates share";
    const SOURCE: &'static str = "Kim et al. 2024, Evaluating Robustness of Reward Models for Mathematical Reasoning";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"tolerance": 0.01}"#];

    type Parameters = Self;
}

const NEEDS_ANSWERS: SelectionError = SelectionError {
    rule: MajorityVote::NAME,
    missing: Cow::Borrowed("the final answer of each candidate; send answers"),
};

impl Selection for MajorityVote {
    fn check(&self, available: &Available) -> Result<(), SelectionError> {
        if available.answers { Ok(()) } else { Err(NEEDS_ANSWERS) }
    }

    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let answers = candidates.answers().ok_or(NEEDS_ANSWERS)?;
        let tied = candidates.tied(self.tolerance.get());
        let votes = |index: usize| tied.iter().filter(|other| answers[**other] == answers[index]).count();
        // `max_by_key` keeps the last of equals; reversed, that is the first.
        let winner = tied.iter().rev().copied().max_by_key(|index| votes(*index));
        Ok(Selected::of(winner.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{candidates, rule, select};

    #[test]
    fn only_tied_candidates_vote() {
        let answers = ["7", "4", "4", "7", "7"].map(str::to_owned).to_vec();
        let voters = candidates(&[1.0, 2.0, 2.0, 2.0, 0.5]).with_answers(answers).unwrap();
        assert_eq!(select("\"majority_vote\"", &voters), [1]);
        assert_eq!(select(r#"{"majority_vote":{"tolerance":2}}"#, &voters), [0]);
    }

    #[test]
    fn equal_votes_go_to_the_first_and_answers_are_needed() {
        let voters = candidates(&[2.0, 2.0]).with_answers(vec!["b".to_owned(), "a".to_owned()]).unwrap();
        assert_eq!(select("\"majority_vote\"", &voters), [0]);
        assert!(rule("\"majority_vote\"").unwrap().check(&candidates(&[1.0]).available()).is_err());
    }
}
