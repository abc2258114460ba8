//! The advantage of a response over the others for its prompt, in standard deviations.
//!
//! `A_i = (r_i − mean r) / (std r + ε)`, with the sample's deviation — group-relative policy optimisation, Shao et al.
//! 2024, "DeepSeekMath". A group of equal rewards gives 0.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform, each_group};
use crate::{
    domain::{
        NotNegative,
        catalogue::{Law, Rule},
    },
    numeric::{DegreesOfFreedom, mean, variance},
};

/// The advantage.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Grpo {
    /// Added to the deviation; 0 is the paper's formula, and trainers use values such as 0.0001.
    #[serde(default)]
    epsilon: NotNegative,
    /// 1 divides the squares by one less than the group's size, as trainers do; 0 by the size.
    #[serde(default = "sample")]
    ddof: DegreesOfFreedom,
}

impl Rule for Grpo {
    const NAME: &'static str = "grpo";
    const SUMMARY: &'static str = "The advantage of a response over the others for its prompt, in standard deviations. \
        Needs at least two responses; a group of equal rewards gives 0.";
    const FORMULA: &'static str = "A_i = (r_i - mean r) / (std r + epsilon)";
    const SOURCE: &'static str =
        "Shao et al. 2024, DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"epsilon": 0.0001, "ddof": 0}"#];
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::KeepsOrder, Law::SumsToZero];

    type Parameters = Self;
}

fn sample() -> DegreesOfFreedom {
    DegreesOfFreedom::Sample
}

impl Transform for Grpo {
    fn needs(&self) -> Needs {
        Needs::GROUP
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        each_group(group, |rewards| {
            let largest = rewards.iter().fold(0.0_f64, |largest, reward| largest.max(reward.abs()));
            // Measured in units of the largest, so that no difference overflows and no square underflows.
            let unit = if largest > 0.0 { largest } else { 1.0 };
            let scaled: Vec<f64> = rewards.iter().map(|reward| reward / unit).collect();
            let middle = mean(&scaled);
            let spread = variance(&scaled, self.ddof).map_or(0.0, f64::sqrt);
            // Rounding leaves a trace of spread between equal rewards; it is no signal.
            let equal = spread <= 1e-15;
            let divisor = spread + self.epsilon.get() / unit;
            scaled.iter().map(|reward| if equal { 0.0 } else { (reward - middle) / divisor }).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, together};

    #[test]
    fn golden_g10() {
        let advantages = together(r#"["grpo"]"#, &[1.0, -1.0, -1.0, 1.0]);
        assert_all_close(&advantages, &[0.866025, -0.866025, -0.866025, 0.866025]);
    }

    #[test]
    fn equal_rewards_have_no_advantage_and_epsilon_damps() {
        assert_all_close(&together(r#"["grpo"]"#, &[0.1; 3]), &[0.0; 3]);
        let damped = together(r#"[{"grpo":{"epsilon":1,"ddof":0}}]"#, &[1.0, -1.0]);
        assert_all_close(&damped, &[0.5, -0.5]);
        let huge = together(r#"["grpo"]"#, &[1e300, -1e300]);
        assert_all_close(&huge, &[0.5_f64.sqrt(), -0.5_f64.sqrt()]);
    }
}
