//! Among nearly equal candidates, the one that differs most from all others.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Available, Candidates, Selected, Selection, SelectionError,
    novelty::{Grams, novelty},
};
use crate::domain::{Count, NotNegative, catalogue::Rule};

/// The tie-break.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Diverse {
    /// How far below the best a reward may be, at least 0.
    tolerance: NotNegative,
    /// How many nearest candidates count, at least 1.
    neighbours: Count,
    /// What tells candidates apart.
    distance: Distance,
}

impl Rule for Diverse {
    const NAME: &'static str = "diverse";
    const SUMMARY: &'static str = "Among the candidates within a tolerance of the best reward, the one furthest from \
        its nearest others, by embeddings that are sent along or come from a model, or by the n-grams of the texts. \
        Ties go to the higher reward, then to the lowest index.";
    const FORMULA: &'static str =
        "argmax over { i : r_i >= max r - tolerance } of the mean distance to the k nearest candidates";
    const SOURCE: &'static str =
        "novelty: Lehman and Stanley 2011, Abandoning Objectives; its use on ties is this project's";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"tolerance": 0.1, "neighbours": 3, "distance": {"words": 2}}"#,
        r#"{"tolerance": 0, "neighbours": 1, "distance": "embeddings"}"#,
        r#"{"tolerance": 0.1, "neighbours": 3, "distance": {"characters": 4}}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        match self.distance.grams() {
            Some(grams) if grams.length() == 0 => Err("the length of n-grams must be at least 1".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

/// What tells candidates apart.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Distance {
    /// The Euclidean distance of their embeddings.
    Embeddings,
    /// One less the share of runs of that many characters that both texts have.
    Characters(usize),
    /// One less the share of runs of that many words that both texts have.
    Words(usize),
}

impl Distance {
    fn grams(self) -> Option<Grams> {
        match self {
            Self::Embeddings => None,
            Self::Characters(length) => Some(Grams::Characters(length)),
            Self::Words(length) => Some(Grams::Words(length)),
        }
    }
}

const NEEDS_EMBEDDINGS: SelectionError = SelectionError {
    rule: Diverse::NAME,
    missing: Cow::Borrowed("the embedding of each candidate; send embeddings, or name an embedding_model"),
};
const NEEDS_TEXTS: SelectionError = SelectionError {
    rule: Diverse::NAME,
    missing: Cow::Borrowed("the text of each candidate; write distance = \"embeddings\" instead"),
};

impl Selection for Diverse {
    fn check(&self, available: &Available) -> Result<(), SelectionError> {
        match self.distance.grams() {
            None if !available.embeddings => Err(NEEDS_EMBEDDINGS),
            Some(_) if !available.texts => Err(NEEDS_TEXTS),
            None | Some(_) => Ok(()),
        }
    }

    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let neighbours = self.neighbours.get();
        let novelties = match self.distance.grams() {
            None => novelty(candidates.embeddings().ok_or(NEEDS_EMBEDDINGS)?, neighbours),
            Some(grams) => novelty(&grams.of(candidates.texts().ok_or(NEEDS_TEXTS)?), neighbours),
        };
        let novelties = novelties.map_err(|missing| SelectionError { rule: Self::NAME, missing: missing.into() })?;
        let rewards = candidates.rewards();
        let better = |one: usize, other: usize| {
            novelties[one].total_cmp(&novelties[other]).then(rewards[one].total_cmp(&rewards[other]))
        };
        // `max_by` keeps the last of equals; reversed, that is the lowest index.
        let winner = candidates.tied(self.tolerance.get()).into_iter().rev().max_by(|one, other| better(*one, *other));
        Ok(Selected::of(winner.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{candidates, rule, select};

    #[test]
    fn the_odd_one_out_wins_a_tie_but_not_a_lead() {
        let texts =
            ["the cat sat", "the cat sat down", "dogs bark", "nothing alike at all"].map(str::to_owned).to_vec();
        let tied = candidates(&[1.0, 1.0, 0.95, 0.2]).with_texts(texts).unwrap();
        let rule = |tolerance: f64| {
            format!(r#"{{"diverse":{{"tolerance":{tolerance},"neighbours":1,"distance":{{"words":1}}}}}}"#)
        };
        assert_eq!(select(&rule(0.1), &tied), [2]);
        assert_eq!(select(&rule(0.0), &tied), [0]);
    }

    #[test]
    fn embeddings_are_compared_when_asked() {
        let json = r#"{"diverse":{"tolerance":0,"neighbours":1,"distance":"embeddings"}}"#;
        let vectors = vec![vec![0.0, 0.0], vec![0.1, 0.0], vec![5.0, 5.0]];
        let tied = candidates(&[1.0; 3]).with_embeddings(vectors).unwrap();
        assert_eq!(select(json, &tied), [2]);
        assert!(rule(json).unwrap().check(&candidates(&[1.0]).available()).is_err());
        assert!(rule(r#"{"diverse":{"tolerance":0,"neighbours":0,"distance":"embeddings"}}"#).is_err());
    }
}
