//! Ratings of several attributes and the weights that make one reward of them.
//!
//! Weights are fixed, as those that Nemotron-4-340B-Reward's model card recommends for its nine outputs, or the graph
//! computes them for each prompt, as the gating network of ArmoRM does (Wang et al. 2024, "Interpretable Preferences via
//! Multi-Objective Reward Modeling and Mixture-of-Experts").

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Head, HeadError, HeadOutput, Layout, finite,
    layout::{arrangement, width},
    parameters::Names,
    rewards,
};
use crate::domain::{Reward, RowTensor, TensorSpec, TokenizedInput, catalogue::Rule};

/// The attributes head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Attributes {
    /// The attributes, in the graph's order.
    names: Names,
    /// What makes one reward of them.
    weights: Weights,
}

impl Rule for Attributes {
    const NAME: &'static str = "attributes";
    const SUMMARY: &'static str = "Ratings of named attributes and one reward, their weighted sum, by fixed weights or \
        by weights that the graph computes. Output [batch, K]; with gating a second one, [batch, K], for the weights.";
    const FORMULA: &'static str = "R = sum_i w_i a_i";
    const SOURCE: &'static str = "Wang et al. 2024, HelpSteer2: Open-source dataset for training top-performing reward \
        models; Wang et al. 2024, Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"names": ["quality", "toxicity", "humor", "creativity", "helpfulness", "correctness", "coherence",
                      "complexity", "verbosity"],
            "weights": {"fixed": [0, 0, 0, 0, 0.3, 0.74, 0.46, 0.47, -0.33]}}"#,
        r#"{"names": ["helpful", "harmless"], "weights": "gating"}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        match &self.weights {
            Weights::Fixed(weights) if weights.len() != self.names.len() => {
                Err(format!("there are {} names and {} weights; write one for each", self.names.len(), weights.len()))
            }
            Weights::Fixed(_) | Weights::Gating => Ok(()),
        }
    }
}

/// What makes one reward of attributes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Weights {
    /// The same weights for every prompt, one for each attribute.
    Fixed(Vec<f64>),
    /// The graph's second output, read at the same token, or at the first of `text.gate_mark`.
    Gating,
}

impl Head for Attributes {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        let list = Layout::list(self.names.len());
        match self.weights {
            Weights::Fixed(_) => vec![vec![list]],
            Weights::Gating => vec![vec![list.clone(), list]],
        }
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        Some(format!("name {} attributes, in the graph's order", width(output)?))
    }

    fn reads_gate(&self) -> bool {
        matches!(self.weights, Weights::Gating)
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        arrangement(self, input, rows)?;
        let scores = rewards(rows[0].values())?;
        let weights = match &self.weights {
            Weights::Fixed(weights) => weights.clone(),
            Weights::Gating => finite(rows[1].values())?,
        };
        let reward = Reward::new(weights.iter().zip(&scores).map(|(weight, score)| weight * score.get()).sum())?;
        Ok(HeadOutput::Objectives { names: self.names.shared(), scores, reward: Some(reward) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, output, row};
    use crate::{head::HeadOutput, numeric::testing::assert_all_close};

    #[test]
    fn fixed_weights_and_gating_give_one_reward_and_keep_the_ratings() {
        let fixed = head(r#"{"attributes":{"names":["a","b"],"weights":{"fixed":[0.5,-2]}}}"#).unwrap();
        let read = fixed.read(&input(1), &[row(&[2], &[4.0, 1.0])]).unwrap();
        assert_all_close(&numbers(read.members()), &[0.0]);
        assert!(matches!(&read, HeadOutput::Objectives { scores, .. } if scores.len() == 2));
        assert_eq!(read.objectives(), None);
        let gating = head(r#"{"attributes":{"names":["a","b"],"weights":"gating"}}"#).unwrap();
        let read = gating.read(&input(1), &[row(&[2], &[4.0, 1.0]), row(&[2], &[0.25, 0.75])]).unwrap();
        assert_all_close(&numbers(read.members()), &[1.75]);
    }

    #[test]
    fn names_and_weights_must_fit() {
        assert!(head(r#"{"attributes":{"names":["a","b"],"weights":{"fixed":[1]}}}"#).is_err());
        let gating = head(r#"{"attributes":{"names":["a","b"],"weights":"gating"}}"#).unwrap();
        assert!(gating.check(&[&output(&[2])]).unwrap_err().to_string().contains("[batch, 2] and [batch, 2]"));
        assert!(gating.check(&[&output(&[3]), &output(&[2])]).unwrap_err().to_string().contains("name 3 attributes"));
    }
}
