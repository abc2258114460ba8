//! Differences of neighbouring step rewards, so that repeating a good step earns nothing.
//!
//! For steps `k = 1…K` with process rewards `p`: `r_k = p_k − p_{k+1}` for `k < K−1`, `r_{K−1} = p_{K−1}`,
//! `r_K = 0` (Gao et al. 2024, "On Designing Effective RL Reward at Training Time for LLM Reasoning"). The sum from
//! step `k` on is `p_k`, whatever follows: it doesn't grow with the number of steps. A single step gives 0, which is
//! this project's reading of `r_K = 0`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Refusal, Signal, Stage, Transform, each_steps};
use crate::domain::catalogue::{Law, Rule};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Delta {}

impl Rule for Delta {
    const NAME: &'static str = "delta";
    const SUMMARY: &'static str = "Differences of neighbouring step rewards: padding a solution with good steps earns \
        nothing. Needs a process reward.";
    const FORMULA: &'static str = "r_k = p_k - p_{k+1} for k < K-1; r_{K-1} = p_{K-1}; r_K = 0";
    const SOURCE: &'static str = "Gao et al. 2024, On Designing Effective RL Reward at Training Time for LLM Reasoning";
    const LAWS: &'static [Law] = &[Law::StepsSumToTheFirst];

    type Parameters = Self;
}

/// Replaces the scores of steps by their differences, as the module's formula says.
pub(super) fn differences(steps: &mut [f64]) {
    for k in 0..steps.len() {
        steps[k] = match steps.len() - k {
            1 => 0.0,
            2 => steps[k],
            _ => steps[k] - steps[k + 1],
        };
    }
}

impl Transform for Delta {
    fn stage(&self, before: Stage) -> Result<Stage, String> {
        before.needs_step_scores().map(|_| Stage::StepRewards)
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        each_steps(group, differences)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        Signal, TransformError,
        testing::{assert_all_close, chain, steps},
    };

    #[test]
    fn golden_g3() {
        assert_all_close(&steps(r#"["delta"]"#, &[0.9, 0.4, 0.6, 0.8]), &[0.5, -0.2, 0.6, 0.0]);
        assert_all_close(&steps(r#"["delta"]"#, &[0.95, 0.97, 0.99, 0.2, 0.9]), &[-0.02, -0.02, 0.79, 0.2, 0.0]);
        assert_all_close(&steps(r#"["delta"]"#, &[0.6, 0.9]), &[0.6, 0.0]);
        assert_all_close(&steps(r#"["delta"]"#, &[0.6]), &[0.0]);
        let hacked = [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5];
        assert_all_close(&[steps(r#"["delta"]"#, &hacked).iter().sum()], &[0.9]);
        let rewards = Signal::Steps(steps(r#"["delta"]"#, &[0.9, 0.4, 0.6, 0.8]));
        assert_all_close(&rewards.returns_to_go(), &[0.9, 0.4, 0.6, 0.0]);
    }

    #[test]
    fn a_reward_without_steps_is_refused_when_the_chain_is_read() {
        assert!(matches!(chain(r#"["delta"]"#, false), Err(TransformError::NoSteps(name)) if name == "delta"));
    }

    proptest! {
        #[test]
        fn the_sum_is_the_first_step_however_many_follow(values in prop::collection::vec(0.0..1.0_f64, 2..200)) {
            let total: f64 = steps(r#"["delta"]"#, &values).iter().sum();
            prop_assert!((total - values[0]).abs() < 1e-9);
        }
    }
}
