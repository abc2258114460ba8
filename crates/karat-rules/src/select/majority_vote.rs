//! The most common answer among the candidates that tie for the best.
//!
//! RewardMATH (Kim et al. 2024, "Evaluating Robustness of Reward Models for Mathematical Reasoning") settles ties of
//! best-of-n by a majority vote over the tied candidates' final answers. Equal votes go to the answer that comes first.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Available, Candidates, Selected, Selection, SelectionError};
use crate::domain::catalogue::{Entry, not_negative, parameter_schema, parameters};

pub(super) const ENTRY: Entry<dyn Selection> = Entry {
    name: "majority_vote",
    summary: "Among the candidates that tie for the best reward, the first with the most common final answer. Needs each \
              candidate's answer.",
    formula: "the first tied i whose answer most tied candidates share",
    source: "Kim et al. 2024, Evaluating Robustness of Reward Models for Mathematical Reasoning",
    examples: &["{}", r#"{"tolerance": 0.01}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { tolerance } = parameters(value)?;
        Ok(Box::new(MajorityVote { tolerance: not_negative("tolerance", tolerance)? }))
    },
};

/// Parameters of the vote.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How far below the best a reward still ties, at least 0.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    tolerance: f64,
}

#[derive(Debug, Clone, Copy)]
struct MajorityVote {
    tolerance: f64,
}

const NEEDS_ANSWERS: SelectionError =
    SelectionError { rule: ENTRY.name, missing: "the final answer of each candidate; send answers" };

impl Selection for MajorityVote {
    fn check(&self, available: &Available) -> Result<(), SelectionError> {
        if available.answers { Ok(()) } else { Err(NEEDS_ANSWERS) }
    }

    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let answers = candidates.answers().ok_or(NEEDS_ANSWERS)?;
        let tied = candidates.tied(self.tolerance);
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
