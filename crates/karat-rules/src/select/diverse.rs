//! Among nearly equal candidates, the one that differs most from all others.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Available, Candidates, Selected, Selection, SelectionError,
    novelty::{Grams, euclidean, jaccard, novelty},
};
use crate::domain::catalogue::{Entry, not_negative, parameter_schema, parameters};

pub(super) const ENTRY: Entry<dyn Selection> = Entry {
    name: "diverse",
    summary: "Among the candidates within a tolerance of the best reward, the one furthest from its nearest others, by \
              embeddings that are sent along or come from a model, or by the n-grams of the texts. Ties go to the higher reward, then to the \
              lowest index.",
    formula: "argmax over { i : r_i >= max r - tolerance } of the mean distance to the k nearest candidates",
    source: "novelty: Lehman and Stanley 2011, Abandoning Objectives; its use on ties is this project's",
    examples: &[
        r#"{"tolerance": 0.1, "neighbours": 3, "distance": {"words": 2}}"#,
        r#"{"tolerance": 0, "neighbours": 1, "distance": "embeddings"}"#,
        r#"{"tolerance": 0.1, "neighbours": 3, "distance": {"characters": 4}}"#,
    ],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { tolerance, neighbours, distance } = parameters(value)?;
        let grams = match distance {
            Distance::Embeddings => None,
            Distance::Characters(length) => Some(Grams::Characters(length)),
            Distance::Words(length) => Some(Grams::Words(length)),
        };
        if neighbours == 0 || grams.is_some_and(|grams| grams.length() == 0) {
            return Err("neighbours and the length of n-grams must be at least 1".to_owned());
        }
        Ok(Box::new(Diverse { tolerance: not_negative("tolerance", tolerance)?, neighbours, grams }))
    },
};

/// Parameters of the tie-break.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How far below the best a reward may be, at least 0.
    #[schemars(range(min = 0.0))]
    tolerance: f64,
    /// How many nearest candidates count, at least 1.
    #[schemars(range(min = 1))]
    neighbours: usize,
    /// What tells candidates apart.
    distance: Distance,
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

#[derive(Debug, Clone, Copy)]
struct Diverse {
    tolerance: f64,
    neighbours: usize,
    grams: Option<Grams>,
}

const NEEDS_EMBEDDINGS: SelectionError = SelectionError {
    rule: ENTRY.name,
    missing: "the embedding of each candidate; send embeddings, or name an embedding_model",
};
const NEEDS_TEXTS: SelectionError =
    SelectionError { rule: ENTRY.name, missing: "the text of each candidate; write distance = \"embeddings\" instead" };

impl Selection for Diverse {
    fn check(&self, available: &Available) -> Result<(), SelectionError> {
        match self.grams {
            None if !available.embeddings => Err(NEEDS_EMBEDDINGS),
            Some(_) if !available.texts => Err(NEEDS_TEXTS),
            None | Some(_) => Ok(()),
        }
    }

    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let count = candidates.rewards().len();
        let novelties = match self.grams {
            None => {
                let embeddings = candidates.embeddings().ok_or(NEEDS_EMBEDDINGS)?;
                novelty(count, self.neighbours, |one, other| euclidean(&embeddings[one], &embeddings[other]))
            }
            Some(grams) => {
                let texts = candidates.texts().ok_or(NEEDS_TEXTS)?;
                let sets: Vec<_> = texts.iter().map(|text| grams.of(text)).collect();
                novelty(count, self.neighbours, |one, other| jaccard(&sets[one], &sets[other]))
            }
        };
        let rewards = candidates.rewards();
        let better = |one: usize, other: usize| {
            novelties[one].total_cmp(&novelties[other]).then(rewards[one].total_cmp(&rewards[other]))
        };
        // `max_by` keeps the last of equals; reversed, that is the lowest index.
        let winner = candidates.tied(self.tolerance).into_iter().rev().max_by(|one, other| better(*one, *other));
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
