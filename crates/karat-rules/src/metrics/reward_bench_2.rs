//! RewardBench 2's scores: picking the right response among several, and not minding which of several right ones.
//!
//! As its published code computes them (Malik et al. 2025, "RewardBench 2: Advancing Reward Model Evaluation"):
//!
//! - Best of several: an item counts `1/m` when its right response shares the highest score with `m − 1` others, else 0.
//! - Ties: prompts with several right responses, each with a reference prompt that has one. An item is accurate when
//!   its lowest right score exceeds its highest wrong one. The margin to the wrong ones should also exceed the spread
//!   among the right ones, in the tied prompt alone and in both. The score is `0.3` of each accuracy, `0.2` of each share
//!   of prompts with such a margin, and `0.01` of the mean of `tanh(margin/spread − 1)`, so that it can reach 1.01.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, finite, not_empty};
use crate::{domain::catalogue::Rule, numeric::mean};

/// Scores of right and wrong responses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewardBench2 {
    /// Prompts with one right response.
    #[serde(default)]
    best_of: Vec<BestOf>,
    /// Prompts with several right responses, each with its reference prompt.
    #[serde(default)]
    ties: Vec<Tied>,
}

impl Rule for RewardBench2 {
    const NAME: &'static str = "reward_bench_2";
    const SUMMARY: &'static str = "RewardBench 2's accuracy at picking the right one of several responses, and its \
        score over prompts with several right responses, which rewards separating right from wrong more than right \
        from right.";
    const FORMULA: &'static str = "best_of: mean of [right is among the m highest] / m; ties: 0.3 tied accuracy + 0.3 \
        reference accuracy + 0.2 [margin_t > spread] + 0.2 [min(margin_r, margin_t) > spread] + 0.01 \
        tanh(min(margin_r, margin_t)/spread - 1)";
    const SOURCE: &'static str =
        "Malik et al. 2025, RewardBench 2: Advancing Reward Model Evaluation, and its published code";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"best_of": [{"right": 0.9, "wrong": [0.1, 0.9, 0.3]}]}"#,
        r#"{"ties": [{"reference": {"right": [2], "wrong": [0, 1]}, "tied": {"right": [3, 2.5], "wrong": [1, 0]}}]}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        if self.best_of.is_empty() && self.ties.is_empty() {
            return Err("send items in best_of, in ties or in both".to_owned());
        }
        self.best_of.iter().try_for_each(|item| not_empty("wrong", &item.wrong))?;
        for item in &self.ties {
            if item.reference.right.is_empty() || item.tied.right.len() < 2 {
                return Err("a reference prompt needs a right response, a tied prompt at least two".to_owned());
            }
            not_empty("wrong", &item.reference.wrong)?;
            not_empty("wrong", &item.tied.wrong)?;
        }
        Ok(())
    }
}

/// The scores of one prompt's responses, one of which is right.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BestOf {
    /// Of the right response.
    right: f64,
    /// Of the wrong ones, at least one.
    wrong: Vec<f64>,
}

/// A prompt with several right responses and a similar one with a single right response.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tied {
    /// The prompt with a single right response.
    reference: Responses,
    /// The prompt with several right responses.
    tied: Responses,
}

/// The scores of one prompt's responses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Responses {
    /// Of the right responses, at least one; at least two in a tied prompt.
    right: Vec<f64>,
    /// Of the wrong ones, at least one.
    wrong: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Scores {
    best_of: Option<f64>,
    ties: Option<TiesScore>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct TiesScore {
    score: f64,
    tied_accuracy: f64,
    reference_accuracy: f64,
    margin_exceeds_spread: f64,
    both_margins_exceed_spread: f64,
    margin_score: f64,
}

impl BestOf {
    fn score(&self) -> f64 {
        let highest = self.wrong.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.right < highest {
            return 0.0;
        }
        1.0 / (1 + self.wrong.iter().filter(|wrong| **wrong >= self.right).count()) as f64
    }
}

impl Responses {
    /// The lowest right score less the highest wrong one.
    fn margin(&self) -> f64 {
        let lowest = self.right.iter().copied().fold(f64::INFINITY, f64::min);
        lowest - self.wrong.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The highest right score less the lowest.
    fn spread(&self) -> f64 {
        let highest = self.right.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        highest - self.right.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn share(items: &[Tied], holds: impl Fn(&Tied) -> bool) -> f64 {
    items.iter().filter(|item| holds(item)).count() as f64 / items.len() as f64
}

fn ties_score(items: &[Tied]) -> Result<TiesScore, MetricError> {
    let both = |item: &Tied| item.reference.margin().min(item.tied.margin());
    let margins: Vec<f64> = items
        .iter()
        .map(|item| {
            // No spread and no margin is 0/0: neither good nor bad.
            let ratio = both(item) / item.tied.spread();
            if ratio.is_nan() { 0.0 } else { (ratio - 1.0).tanh() }
        })
        .collect();
    let tied_accuracy = share(items, |item| item.tied.margin() > 0.0);
    let reference_accuracy = share(items, |item| item.reference.margin() > 0.0);
    let margin_exceeds_spread = share(items, |item| item.tied.margin() > item.tied.spread());
    let both_margins_exceed_spread = share(items, |item| both(item) > item.tied.spread());
    let margin_score = finite("the margin score", mean(&margins))?;
    let accuracy = 0.3 * tied_accuracy + 0.3 * reference_accuracy;
    let separation = 0.2 * margin_exceeds_spread + 0.2 * both_margins_exceed_spread;
    Ok(TiesScore {
        score: accuracy + separation + 0.01 * margin_score,
        tied_accuracy,
        reference_accuracy,
        margin_exceeds_spread,
        both_margins_exceed_spread,
        margin_score,
    })
}

impl Metric for RewardBench2 {
    fn compute(&self) -> Result<Value, MetricError> {
        let best_of =
            (!self.best_of.is_empty()).then(|| mean(&self.best_of.iter().map(BestOf::score).collect::<Vec<_>>()));
        let ties = (!self.ties.is_empty()).then(|| ties_score(&self.ties)).transpose()?;
        answer(Scores { best_of, ties })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{metric, number};
    use crate::numeric::testing::assert_close;

    #[test]
    fn a_shared_first_place_counts_by_its_share() {
        let items = r#"[{"right":0.9,"wrong":[0.1,0.9,0.3]},{"right":0.9,"wrong":[0.1]},{"right":0.1,"wrong":[0.9]}]"#;
        let result = metric(&format!(r#"{{"reward_bench_2":{{"best_of":{items}}}}}"#)).unwrap();
        assert_close(number(&result, "/best_of"), 0.5);
        assert!(result["ties"].is_null());
    }

    /// By hand: tied margin 1.5, reference margin 1, spread 0.5, so that both exceed it; tanh(1/0.5 − 1) = 0.761594. In
    /// the second item the tied margin 0.5 is below the spread 2; tanh(0.5/2 − 1) = −0.635149.
    #[test]
    fn ties_are_scored_by_accuracy_and_by_separation() {
        let good = r#"{"reference":{"right":[2],"wrong":[0,1]},"tied":{"right":[3,2.5],"wrong":[1,0]}}"#;
        let spread = r#"{"reference":{"right":[2],"wrong":[0]},"tied":{"right":[3,1],"wrong":[0.5]}}"#;
        let result = metric(&format!(r#"{{"reward_bench_2":{{"ties":[{good}]}}}}"#)).unwrap();
        assert_close(number(&result, "/ties/score"), 1.0 + 0.00761594);
        let result = metric(&format!(r#"{{"reward_bench_2":{{"ties":[{good},{spread}]}}}}"#)).unwrap();
        assert_close(number(&result, "/ties/tied_accuracy"), 1.0);
        assert_close(number(&result, "/ties/margin_exceeds_spread"), 0.5);
        assert_close(number(&result, "/ties/margin_score"), f64::midpoint(0.761594, -0.635149));
        assert_close(number(&result, "/ties/score"), 0.6 + 0.2 + 0.01 * f64::midpoint(0.761594, -0.635149));
    }

    #[test]
    fn equal_scores_are_neither_good_nor_bad() {
        let flat = r#"{"reference":{"right":[1],"wrong":[1]},"tied":{"right":[1,1],"wrong":[1]}}"#;
        let result = metric(&format!(r#"{{"reward_bench_2":{{"ties":[{flat}]}}}}"#)).unwrap();
        assert_close(number(&result, "/ties/score"), 0.0);
        assert!(metric(r#"{"reward_bench_2":{}}"#).is_err());
        let single = r#"{"reference":{"right":[1],"wrong":[0]},"tied":{"right":[1],"wrong":[0]}}"#;
        assert!(metric(&format!(r#"{{"reward_bench_2":{{"ties":[{single}]}}}}"#)).is_err());
    }
}
