//! Step rewards that can only cost: a step above the threshold earns nothing, one below it pays the difference.
//!
//! `r_k = min(p_k − η, 0)` for process rewards `p` (Gao et al. 2024, "On Designing Effective RL Reward at Training Time
//! for LLM Reasoning"). The sum is at most 0, so that longer solutions earn nothing by their length. The paper's `η`
//! could not be verified; it is required.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Refusal, Signal, Stage, Transform, steps};
use crate::domain::catalogue::{Entry, Law, finite, parameter_schema, parameters};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "step_clip",
    summary: "Step rewards that can only cost: a step above eta earns nothing, one below it pays the difference. \
              Needs a process reward.",
    formula: "r_k = min(p_k - eta, 0)",
    source: "Gao et al. 2024, On Designing Effective RL Reward at Training Time for LLM Reasoning",
    examples: &[r#"{"eta": 0.7}"#],
    laws: &[Law::StepsSumToAtMostZero],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { eta } = parameters(value)?;
        Ok(Box::new(StepClip { eta: finite("eta", eta)? }))
    },
};

/// Parameters of the step clip.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// The process reward of a step that is just good enough.
    pub(super) eta: f64,
}

#[derive(Debug, Clone, Copy)]
struct StepClip {
    eta: f64,
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
        for signal in group {
            shortfalls(steps(signal)?, self.eta);
        }
        Ok(())
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
