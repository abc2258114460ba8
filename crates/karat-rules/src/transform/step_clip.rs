//! Step rewards that can only cost: a step above the threshold earns nothing, one below it pays the difference.
//!
//! `r_k = min(p_k − η, 0)` for process rewards `p` (Gao et al. 2024, "On Designing Effective RL Reward at Training Time
//! for LLM Reasoning"). The sum is at most 0, so that longer solutions earn nothing by their length. The paper's `η`
//! could not be verified; it is required.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Refusal, Signal, Stage, Transform, each_steps};
use crate::domain::catalogue::{Law, Rule};

/// The step clip.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepClip {
    /// The process reward of a step that is just good enough.
    eta: f64,
}

impl Rule for StepClip {
    const NAME: &'static str = "step_clip";
    const SUMMARY: &'static str = "Step rewards that can only cost: a step above eta earns nothing, one below it pays \
        the difference. Needs a process reward.";
    const FORMULA: &'static str = "r_k = min(p_k - eta, 0)";
    const SOURCE: &'static str = "Gao et al. 2024, On Designing Effective RL Reward at Training Time for LLM Reasoning";
    const EXAMPLES: &'static [&'static str] = &[r#"{"eta": 0.7}"#];
    const LAWS: &'static [Law] = &[Law::StepsSumToAtMostZero];

    type Parameters = Self;
}

/// Replaces the scores of steps by what they lack to `eta`, as the module's formula says.
pub(super) fn shortfalls(steps: &mut [f64], eta: f64) {
    steps.iter_mut().for_each(|step| *step = (*step - eta).min(0.0));
}

impl Transform for StepClip {
    fn stage(&self, before: Stage) -> Result<Stage, String> {
        before.needs_step_scores()
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        each_steps(group, |steps| shortfalls(steps, self.eta))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, steps};

    #[test]
    fn golden_g3() {
        let clip = |eta: f64| format!(r#"[{{"step_clip":{{"eta":{eta}}}}}]"#);
        assert_all_close(&steps(&clip(0.7), &[0.9, 0.4, 0.6, 0.8]), &[0.0, -0.3, -0.1, 0.0]);
        assert_all_close(&steps(&clip(0.9), &[0.95, 0.97, 0.99, 0.2, 0.9]), &[0.0, 0.0, 0.0, -0.7, 0.0]);
        assert_all_close(&steps(&clip(0.7), &[0.6, 0.9]), &[-0.1, 0.0]);
        assert_all_close(&steps(&clip(0.7), &[0.6]), &[-0.1]);
        let hacked = [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5];
        assert_all_close(&[steps(&clip(0.7), &hacked).iter().sum()], &[-0.2]);
    }
}
