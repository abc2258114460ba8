//! The advantage of a response over the mean of the others for its prompt.
//!
//! `A_i = r_i − (1/(k−1)) Σ_{j≠i} r_j` — leave-one-out REINFORCE, Kool et al. 2019; Ahmadian et al. 2024; OREAL, Lyu et
//! al. 2025. The baseline doesn't depend on the response itself, so it adds no bias.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform, each_group};
use crate::{
    domain::catalogue::{Law, Rule},
    numeric::mean,
};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rloo {}

impl Rule for Rloo {
    const NAME: &'static str = "rloo";
    const SUMMARY: &'static str =
        "The advantage of a response over the mean of the others for its prompt. Needs at least two responses.";
    const FORMULA: &'static str = "A_i = r_i - (1/(k-1)) sum_{j != i} r_j";
    const SOURCE: &'static str = "Ahmadian et al. 2024, Back to Basics: Revisiting REINFORCE Style Optimization for \
        Learning from Human Feedback in LLMs";
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::KeepsOrder, Law::SumsToZero];

    type Parameters = Self;
}

impl Transform for Rloo {
    fn needs(&self) -> Needs {
        Needs::GROUP
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        each_group(group, |rewards| {
            let (count, middle) = (rewards.len() as f64, mean(rewards));
            // r − (k·mean − r)/(k − 1) is the deviation from the mean, stretched.
            rewards.iter().map(|reward| (reward - middle) * (count / (count - 1.0))).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, together};

    #[test]
    fn golden_g10() {
        let advantages = together(r#"["rloo"]"#, &[1.0, -1.0, -1.0, 1.0]);
        assert_all_close(&advantages, &[1.333333, -1.333333, -1.333333, 1.333333]);
    }
}
