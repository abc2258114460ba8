//! One number of a solution's step probabilities, by the reductions of the process head.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Refusal, Signal, Stage, Transform, steps};
use crate::{domain::catalogue::Rule, numeric::Reduction};

/// The reduction.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reduce {
    /// How the steps become one number.
    by: Reduction,
}

impl Rule for Reduce {
    const NAME: &'static str = "reduce";
    const SUMMARY: &'static str = "One number of the step probabilities: their minimum, product, mean and so on. Needs \
        a process reward, as the head gives it.";
    const FORMULA: &'static str =
        "R = min_k p_k, prod_k p_k, (prod_k p_k)^(1/K), mean_k p_k, sigmoid(mean_k logit p_k), mean_k p_k/(1-p_k), p_K";
    const SOURCE: &'static str = "Kim et al. 2024, Evaluating Robustness of Reward Models for Mathematical Reasoning";
    const EXAMPLES: &'static [&'static str] = &[r#"{"by": "min"}"#, r#"{"by": "geometric_mean"}"#];

    type Parameters = Self;
}

impl Transform for Reduce {
    fn gives_probabilities(&self, before: bool) -> bool {
        before && self.by.keeps_probabilities()
    }

    fn stage(&self, before: Stage) -> Result<Stage, String> {
        before.needs_step_scores().map(|_| Stage::Outcome)
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        for signal in group {
            let reduced = self.by.apply(steps(signal)?).map_err(|error| Refusal(error.to_string()))?;
            *signal = Signal::Outcome(reduced);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        TransformError,
        testing::{assert_all_close, chain, steps},
    };
    use crate::transform::Signal;

    #[test]
    fn golden_g14() {
        assert_all_close(&steps(r#"[{"reduce":{"by":"min"}}]"#, &[0.9, 0.5, 0.8]), &[0.5]);
        assert_all_close(&steps(r#"[{"reduce":{"by":"mean_logit"}}]"#, &[0.9, 0.5, 0.8]), &[0.767546]);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let error = chain(r#"[{"reduce":{"by":"prod"}}]"#, true).unwrap().apply(&mut [Signal::Steps(vec![1.5])]);
        assert!(matches!(error, Err(TransformError::Refused { .. })), "{error:?}");
    }
}
