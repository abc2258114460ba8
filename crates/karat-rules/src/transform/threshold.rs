//! Ignores rewards that are not above a threshold.
//!
//! The two gates of ONI (Zheng et al. 2024, "Online Intrinsic Rewards for Decision Making Agents from Large Language
//! Model Feedback"): `1[p > th]` over a classifier's probability, `z · 1[z > ε]` over a normalised ranking reward. Its
//! code's argument defaults are 0.5 and −0.5; not every run of the paper need have used them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Pointwise;
use crate::domain::catalogue::Rule;

/// The gate.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Threshold {
    /// What a reward must exceed.
    above: f64,
    /// What a reward above it becomes.
    gives: Gives,
}

impl Rule for Threshold {
    const NAME: &'static str = "threshold";
    const SUMMARY: &'static str =
        "Gives 0 for a reward that is not above a threshold, and 1 or the reward itself for one that is.";
    const FORMULA: &'static str = "r' = [r > above] or r * [r > above]";
    const SOURCE: &'static str =
        "Zheng et al. 2024, Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"above": 0.5, "gives": "one"}"#, r#"{"above": -0.5, "gives": "reward"}"#];

    type Parameters = Self;
}

/// What a reward above the threshold becomes.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Gives {
    /// 1.
    One,
    /// Itself.
    Reward,
}

impl Pointwise for Threshold {
    fn gives_probabilities(&self, before: bool) -> bool {
        match self.gives {
            Gives::One => true,
            Gives::Reward => before,
        }
    }

    fn map(&self, value: f64) -> f64 {
        match self.gives {
            _ if value <= self.above => 0.0,
            Gives::One => 1.0,
            Gives::Reward => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, outcome};

    #[test]
    fn the_threshold_itself_does_not_pass() {
        let one = r#"[{"threshold":{"above":0.5,"gives":"one"}}]"#;
        assert_all_close(&[0.4, 0.5, 0.6].map(|p| outcome(one, p)), &[0.0, 0.0, 1.0]);
        let reward = r#"[{"threshold":{"above":-0.5,"gives":"reward"}}]"#;
        assert_all_close(&[-0.6, -0.4, 2.0].map(|z| outcome(reward, z)), &[0.0, -0.4, 2.0]);
    }
}
