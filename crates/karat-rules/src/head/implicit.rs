//! The reward that a tuned policy holds implicitly: how much likelier it finds a response than its reference does.
//!
//! `r_t = β (log π(y_t | x, y_<t) − log π_ref(y_t | x, y_<t))`, summed over the response (Rafailov et al. 2023, "Direct
//! Preference Optimization"; the reward of SELM, of SCIR's implicit judge and of CREAM). The sigmoid of the difference
//! between two responses is the probability that the first is better, which is what `/v1/compare` tells.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, HeadShape, ProbeError, Probing,
    log_probability::{Reduce, read_response},
    probing::{differences, single, tokens_of, unexpected},
};
use crate::domain::{Positive, Probe, RowTensor, Sample, TokenizedInput, catalogue::Rule};

/// The implicit reward.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Implicit {
    /// The temperature that the policy was tuned with, above 0.
    beta: Positive,
    /// How the tokens' rewards become one number.
    #[serde(default = "sum")]
    reduce: Reduce,
}

impl Rule for Implicit {
    const NAME: &'static str = "implicit";
    const SUMMARY: &'static str = "How much likelier a tuned policy finds the response than its reference model does, \
        times beta. Two graphs a score, the policy first, that share the tokenizer; a decoder's output logits.";
    const FORMULA: &'static str = "R = beta sum_t (log p(y_t | x, y_<t) - log p_ref(y_t | x, y_<t)), or their mean";
    const SOURCE: &'static str = "Rafailov et al. 2023, Direct Preference Optimization; Zhang et al. 2024, \
        Self-Exploring Language Models (SELM); Wang et al. 2024, CREAM";
    const EXAMPLES: &'static [&'static str] = &[r#"{"beta": 0.1}"#, r#"{"beta": 0.01, "reduce": "mean"}"#];

    type Parameters = Self;
}

fn sum() -> Reduce {
    Reduce::Sum
}

impl Probing for Implicit {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::Response(single(sample)?)])
    }

    fn gives(&self) -> HeadShape {
        HeadShape::by_token()
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        read_response(Self::NAME, input, rows, self.reduce)
    }

    fn graphs(&self) -> usize {
        2
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        let [policy, reference] = readings else { return Err(unexpected(Self::NAME)) };
        let (Some(policy), Some(reference)) = (policy.first(), reference.first()) else {
            return Err(unexpected(Self::NAME));
        };
        let (policy, reference) = (tokens_of(Self::NAME, policy)?, tokens_of(Self::NAME, reference)?);
        // Both graphs read the same input.
        if policy.len() != reference.len() {
            return Err(unexpected(Self::NAME));
        }
        let (tokens, rewards) = differences(policy, reference, |difference| self.beta.get() * difference);
        Ok(HeadOutput::Tokens { reward: self.reduce.apply(&rewards)?, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, likely, numbers, row};
    use crate::numeric::{
        sigmoid,
        testing::{assert_all_close, assert_close},
    };

    fn reward(parameters: &str, policy: &[f32], reference: &[f32]) -> f64 {
        let head = head(&format!(r#"{{"implicit":{parameters}}}"#)).unwrap();
        let input = likely(4, 2..4);
        let read = |values: &[f32]| head.read(&input, &[row(&[2], values)]).unwrap();
        let (policy, reference) = (read(policy), read(reference));
        let combined = head.probing().unwrap().combine(&[vec![&policy], vec![&reference]]).unwrap();
        numbers(combined.members())[0]
    }

    /// G18 of the reward maths: beta 0.1 and log-ratios of 5 and 1 give a preference of 0.598688.
    #[test]
    fn golden_g18_the_implicit_preference() {
        let beta = r#"{"beta":0.1}"#;
        let (better, worse) = (reward(beta, &[-1.0, -2.0], &[-4.0, -4.0]), reward(beta, &[-1.0, -2.0], &[-2.0, -2.0]));
        assert_all_close(&[better, worse], &[0.5, 0.1]);
        assert_close(sigmoid(better - worse), 0.598688);
    }

    #[test]
    fn the_mean_is_per_token_and_beta_is_above_zero() {
        assert_close(reward(r#"{"beta":0.1,"reduce":"mean"}"#, &[-1.0, -2.0], &[-4.0, -4.0]), 0.25);
        for bad in ["{}", r#"{"beta":0}"#, r#"{"beta":-1}"#] {
            assert!(head(&format!(r#"{{"implicit":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
