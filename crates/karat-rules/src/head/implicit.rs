//! The reward that a tuned policy holds implicitly: how much likelier it finds a response than its reference does.
//!
//! `r_t = β (log π(y_t | x, y_<t) − log π_ref(y_t | x, y_<t))`, summed over the response (Rafailov et al. 2023, "Direct
//! Preference Optimization"; the reward of SELM, of SCIR's implicit judge and of CREAM). The sigmoid of the difference
//! between two responses is the probability that the first is better, which is what `/v1/compare` tells.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Head, HeadError, HeadOutput, HeadShape, Layout, ProbeError, Probing, TokenReward,
    log_probability::{Reduce, read_response},
    probing::{single, tokens_of, unexpected, vocabulary},
};
use crate::domain::{
    Probe, RowTensor, Sample, TokenizedInput,
    catalogue::{Entry, parameter_schema, parameters},
};

pub(super) const ENTRY: Entry<dyn Head> = Entry {
    name: "implicit",
    summary: "How much likelier a tuned policy finds the response than its reference model does, times beta. Two graphs a \
              score, the policy first, that share the tokenizer; a decoder's output logits.",
    formula: "R = beta sum_t (log p(y_t | x, y_<t) - log p_ref(y_t | x, y_<t)), or their mean",
    source: "Rafailov et al. 2023, Direct Preference Optimization; Zhang et al. 2024, Self-Exploring Language Models (SELM); \
             Wang et al. 2024, CREAM",
    examples: &[r#"{"beta": 0.1}"#, r#"{"beta": 0.01, "reduce": "mean"}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { beta, reduce } = parameters(value)?;
        if !(beta.is_finite() && beta > 0.0) {
            return Err(format!("beta must be a finite number above 0, found {beta}"));
        }
        Ok(Box::new(Implicit { beta, reduce }))
    },
};

/// Parameters of the implicit head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The temperature that the policy was tuned with, above 0.
    #[schemars(range(min = 0.0))]
    beta: f64,
    /// How the tokens' rewards become one number.
    #[serde(default = "default_reduce")]
    reduce: Reduce,
}

fn default_reduce() -> Reduce {
    Reduce::Sum
}

#[derive(Debug, Clone)]
struct Implicit {
    beta: f64,
    reduce: Reduce,
}

impl Head for Implicit {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vocabulary()
    }

    fn shape(&self) -> HeadShape {
        HeadShape { tokens: true, ..HeadShape::of(1) }
    }

    fn probing(&self) -> Option<&dyn Probing> {
        Some(self)
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        read_response(self.name(), input, rows, self.reduce)
    }
}

impl Probing for Implicit {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::Response(single(sample)?)])
    }

    fn graphs(&self) -> usize {
        2
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        let [policy, reference] = readings else { return Err(unexpected(self.name())) };
        let (Some(policy), Some(reference)) = (policy.first(), reference.first()) else {
            return Err(unexpected(self.name()));
        };
        let (policy, reference) = (tokens_of(self.name(), policy)?, tokens_of(self.name(), reference)?);
        // Both graphs read the same input.
        if policy.len() != reference.len() {
            return Err(unexpected(self.name()));
        }
        let tokens: Vec<TokenReward> = policy
            .iter()
            .zip(reference)
            .map(|(ours, theirs)| TokenReward { reward: self.beta * (ours.reward - theirs.reward), ..ours.clone() })
            .collect();
        let rewards: Vec<f64> = tokens.iter().map(|token| token.reward).collect();
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
