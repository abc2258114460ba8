//! The step clip, then the differences of what it leaves: bounded step rewards that neither padding nor splitting of
//! steps can raise.
//!
//! `c_k = min(p_k − η, 0)`, then the delta of `c` (Gao et al. 2024, "On Designing Effective RL Reward at Training Time
//! for LLM Reasoning"). Two or more steps sum to `min(p_1 − η, 0)`. Single steps may be positive; only the sum is
//! bounded. Clipping after the delta is a different, wrong order.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Refusal, Signal, Stage, Transform, delta::differences, each_steps, step_clip::shortfalls};
use crate::domain::catalogue::{Law, Rule};

/// Both rules in a row.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipThenDelta {
    /// The process reward of a step that is just good enough.
    eta: f64,
}

impl Rule for ClipThenDelta {
    const NAME: &'static str = "clip_then_delta";
    const SUMMARY: &'static str = "The step clip and then the differences of neighbours: the paper's best combination. \
        The sum is at most 0 however many steps there are, though single steps may be positive. Needs a process \
        reward.";
    const FORMULA: &'static str =
        "c_k = min(p_k - eta, 0); r_k = c_k - c_{k+1} for k < K-1; r_{K-1} = c_{K-1}; r_K = 0";
    const SOURCE: &'static str = "Gao et al. 2024, On Designing Effective RL Reward at Training Time for LLM Reasoning";
    const EXAMPLES: &'static [&'static str] = &[r#"{"eta": 0.7}"#];
    const LAWS: &'static [Law] = &[Law::StepsSumToAtMostZero];

    type Parameters = Self;
}

impl Transform for ClipThenDelta {
    fn stage(&self, before: Stage) -> Result<Stage, String> {
        before.needs_step_scores().map(|_| Stage::StepRewards)
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        each_steps(group, |steps| {
            shortfalls(steps, self.eta);
            differences(steps);
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{assert_all_close, steps};

    fn rewards(eta: f64, scores: &[f64]) -> Vec<f64> {
        let both = steps(&format!(r#"[{{"clip_then_delta":{{"eta":{eta}}}}}]"#), scores);
        assert_all_close(&both, &steps(&format!(r#"[{{"step_clip":{{"eta":{eta}}}}},"delta"]"#), scores));
        both
    }

    #[test]
    fn golden_g3() {
        assert_all_close(&rewards(0.7, &[0.9, 0.4, 0.6, 0.8]), &[0.3, -0.2, -0.1, 0.0]);
        assert_all_close(&rewards(0.9, &[0.95, 0.97, 0.99, 0.2, 0.9]), &[0.0, 0.0, 0.7, -0.7, 0.0]);
        assert_all_close(&rewards(0.7, &[0.6, 0.9]), &[-0.1, 0.0]);
        assert_all_close(&rewards(0.7, &[0.6]), &[0.0]);
        let hacked = [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5];
        assert_all_close(&[rewards(0.7, &hacked).iter().sum()], &[0.0]);
    }

    proptest! {
        #[test]
        fn the_sum_is_the_first_steps_shortfall(scores in prop::collection::vec(0.0..1.0_f64, 2..200), eta in 0.0..1.0_f64) {
            let total: f64 = rewards(eta, &scores).iter().sum();
            prop_assert!((total - (scores[0] - eta).min(0.0)).abs() < 1e-9);
        }
    }
}
