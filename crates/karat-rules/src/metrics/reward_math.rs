//! How often a reward model puts the right solutions before the wrong ones.
//!
//! RewardMATH (Kim et al. 2024): an item is right when the lowest chosen score exceeds the highest rejected one; the
//! reciprocal rank is that of the best chosen response, with rejected responses first among equals. Their mean is the
//! mean reciprocal rank.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, not_empty};
use crate::{domain::catalogue::Rule, numeric::mean};

/// The scores of right and wrong responses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewardMath {
    /// At least one.
    items: Vec<Item>,
}

impl Rule for RewardMath {
    const NAME: &'static str = "reward_math";
    const SUMMARY: &'static str = "Accuracy (every chosen response above every rejected one; also with ties allowed) \
        and mean reciprocal rank of the best chosen response, rejected ones first among equals.";
    const FORMULA: &'static str =
        "accuracy = mean [min chosen > max rejected]; RR = 1 / (1 + number of rejected >= max chosen)";
    const SOURCE: &'static str = "Kim et al. 2024, Evaluating Robustness of Reward Models for Mathematical Reasoning";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"items": [{"chosen": [0.9], "rejected": [0.85, 0.2]}, {"chosen": [0.6], "rejected": [0.7, 0.65]}]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        not_empty("items", &self.items)?;
        for item in &self.items {
            not_empty("chosen", &item.chosen)?;
            not_empty("rejected", &item.rejected)?;
        }
        Ok(())
    }
}

/// The scores of one prompt's responses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Item {
    /// Of the right responses, at least one.
    chosen: Vec<f64>,
    /// Of the wrong ones, at least one.
    rejected: Vec<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Ratings {
    accuracy: f64,
    accuracy_with_ties: f64,
    mean_reciprocal_rank: f64,
    reciprocal_ranks: Vec<f64>,
}

impl Item {
    fn lowest_chosen(&self) -> f64 {
        self.chosen.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn highest_rejected(&self) -> f64 {
        self.rejected.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    fn reciprocal_rank(&self) -> f64 {
        let best = self.chosen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let before = self.rejected.iter().filter(|rejected| **rejected >= best).count();
        1.0 / (before + 1) as f64
    }
}

impl Metric for RewardMath {
    fn compute(&self) -> Result<Value, MetricError> {
        let share = |right: fn(&Item) -> bool| {
            self.items.iter().filter(|item| right(item)).count() as f64 / self.items.len() as f64
        };
        let reciprocal_ranks: Vec<f64> = self.items.iter().map(Item::reciprocal_rank).collect();
        answer(Ratings {
            accuracy: share(|item| item.lowest_chosen() > item.highest_rejected()),
            accuracy_with_ties: share(|item| item.lowest_chosen() >= item.highest_rejected()),
            mean_reciprocal_rank: mean(&reciprocal_ranks),
            reciprocal_ranks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{metric, number};
    use crate::numeric::testing::assert_close;

    #[test]
    fn golden_g14() {
        for (chosen, rejected, accuracy, with_ties, rank) in [
            ("[0.9]", "[0.85,0.2]", 1.0, 1.0, 1.0),
            ("[0.6]", "[0.7,0.65]", 0.0, 0.0, 0.333333),
            ("[0.5]", "[0.5]", 0.0, 1.0, 0.5),
        ] {
            let item = format!(r#"{{"chosen":{chosen},"rejected":{rejected}}}"#);
            let result = metric(&format!(r#"{{"reward_math":{{"items":[{item}]}}}}"#)).unwrap();
            assert_close(number(&result, "/accuracy"), accuracy);
            assert_close(number(&result, "/accuracy_with_ties"), with_ties);
            assert_close(number(&result, "/mean_reciprocal_rank"), rank);
        }
    }

    #[test]
    fn every_chosen_response_must_win() {
        let item = r#"{"chosen":[0.9,0.1],"rejected":[0.5]}"#;
        let result = metric(&format!(r#"{{"reward_math":{{"items":[{item}]}}}}"#)).unwrap();
        assert_close(number(&result, "/accuracy"), 0.0);
        assert_close(number(&result, "/mean_reciprocal_rank"), 1.0);
        assert!(metric(r#"{"reward_math":{"items":[{"chosen":[],"rejected":[1]}]}}"#).is_err());
    }
}
