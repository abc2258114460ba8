//! The advantage of a response over the others for its prompt, in standard deviations.
//!
//! `A_i = (r_i − mean r) / (std r + ε)`, with the sample's deviation — group-relative policy optimisation, Shao et al.
//! 2024, "DeepSeekMath". A group of equal rewards gives 0.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Stage, Transform, outcomes, set_outcomes};
use crate::{
    domain::catalogue::{Entry, Law, not_negative, parameter_schema, parameters},
    numeric::{DegreesOfFreedom, mean, variance},
};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "grpo",
    summary: "The advantage of a response over the others for its prompt, in standard deviations. Needs at least two \
              responses; a group of equal rewards gives 0.",
    formula: "A_i = (r_i - mean r) / (std r + epsilon)",
    source: "Shao et al. 2024, DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    examples: &["{}", r#"{"epsilon": 0.0001, "ddof": 0}"#],
    laws: &[Law::PermutationInvariant, Law::KeepsOrder, Law::SumsToZero],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { epsilon, ddof } = parameters(value)?;
        Ok(Box::new(Grpo { epsilon: not_negative("epsilon", epsilon)?, ddof }))
    },
};

/// Parameters of the advantage.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Added to the deviation; 0 is the paper's formula, and trainers use values such as 0.0001.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    epsilon: f64,
    /// 1 divides the squares by one less than the group's size, as trainers do; 0 by the size.
    #[serde(default = "sample")]
    ddof: DegreesOfFreedom,
}

fn sample() -> DegreesOfFreedom {
    DegreesOfFreedom::Sample
}

#[derive(Debug, Clone, Copy)]
struct Grpo {
    epsilon: f64,
    ddof: DegreesOfFreedom,
}

impl Transform for Grpo {
    fn needs(&self) -> Needs {
        Needs { group: 2, ..Needs::default() }
    }

    fn stage(&self, before: Stage) -> Result<Stage, String> {
        before.needs_outcome()
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        let rewards = outcomes(group)?;
        let largest = rewards.iter().fold(0.0_f64, |largest, reward| largest.max(reward.abs()));
        // Measured in units of the largest, so that no difference overflows and no square underflows.
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let scaled: Vec<f64> = rewards.iter().map(|reward| reward / unit).collect();
        let middle = mean(&scaled);
        let spread = variance(&scaled, self.ddof).map_or(0.0, f64::sqrt);
        // Rounding leaves a trace of spread between equal rewards; it is no signal.
        let equal = spread <= 1e-15;
        let divisor = spread + self.epsilon / unit;
        let advantages: Vec<f64> =
            scaled.iter().map(|reward| if equal { 0.0 } else { (reward - middle) / divisor }).collect();
        set_outcomes(group, &advantages);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Context,
        testing::{assert_all_close, group},
    };

    #[test]
    fn golden_g10() {
        let advantages = group(r#"["grpo"]"#, &[1.0, -1.0, -1.0, 1.0], &Context::default()).unwrap();
        assert_all_close(&advantages, &[0.866025, -0.866025, -0.866025, 0.866025]);
    }

    #[test]
    fn equal_rewards_have_no_advantage_and_epsilon_damps() {
        assert_all_close(&group(r#"["grpo"]"#, &[0.1; 3], &Context::default()).unwrap(), &[0.0; 3]);
        let damped = group(r#"[{"grpo":{"epsilon":1,"ddof":0}}]"#, &[1.0, -1.0], &Context::default()).unwrap();
        assert_all_close(&damped, &[0.5, -0.5]);
        let huge = group(r#"["grpo"]"#, &[1e300, -1e300], &Context::default()).unwrap();
        assert_all_close(&huge, &[0.5_f64.sqrt(), -0.5_f64.sqrt()]);
    }
}
