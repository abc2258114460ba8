//! How likely a decoder finds a response, token by token.
//!
//! The plainest reward of a decoder, and the one that CREAM uses where there is no reference model: the mean of
//! `log π(y_t | x, y_<t)` over the response's tokens (Wang et al. 2024, "CREAM: Consistency Regularized Self-Rewarding
//! Language Models"). Tokens of the template before and after the response don't count.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, HeadShape, ProbeError, Probing,
    probing::{log_probabilities, single, token_rewards},
};
use crate::{
    domain::{Probe, Reward, RowTensor, Sample, TokenizedInput, catalogue::Rule},
    numeric::mean,
};

/// The log-probability head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogProbability {
    /// How the tokens' log-probabilities become one number.
    #[serde(default)]
    reduce: Reduce,
}

impl Rule for LogProbability {
    const NAME: &'static str = "log_probability";
    const SUMMARY: &'static str = "The mean, or the sum, of the log-probabilities of the response's tokens under a \
        language model. A decoder's output logits.";
    const FORMULA: &'static str = "R = mean_t log p(y_t | x, y_<t), or their sum";
    const SOURCE: &'static str = "Wang et al. 2024, CREAM: Consistency Regularized Self-Rewarding Language Models (the \
        reward without a reference model)";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"reduce": "sum"}"#];

    type Parameters = Self;
}

/// How tokens' rewards become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reduce {
    /// Their mean, which doesn't favour short responses.
    #[default]
    Mean,
    /// Their sum: the logarithm of the whole response's probability.
    Sum,
}

impl Reduce {
    /// One number out of at least one.
    pub(super) fn apply(self, values: &[f64]) -> Result<Reward, HeadError> {
        Ok(Reward::new(match self {
            Self::Mean => mean(values),
            Self::Sum => values.iter().sum(),
        })?)
    }
}

/// What one pass over a response gave: each of its tokens with its log-probability, and those reduced.
///
/// # Errors
/// When the pass didn't give them, or they are no numbers.
pub(super) fn read_response(
    head: &str,
    input: &TokenizedInput,
    rows: &[RowTensor],
    reduce: Reduce,
) -> Result<HeadOutput, HeadError> {
    let values = log_probabilities(head, input, rows)?;
    let reward = reduce.apply(&values)?;
    Ok(HeadOutput::Tokens { tokens: token_rewards(input, values), reward })
}

impl Probing for LogProbability {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::Response(single(sample)?)])
    }

    fn gives(&self) -> HeadShape {
        HeadShape::by_token()
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        read_response(Self::NAME, input, rows, self.reduce)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, likely, numbers, row};
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn the_mean_is_over_the_tokens_that_were_read() {
        for (parameters, expected) in [("{}", -0.6), (r#"{"reduce":"sum"}"#, -1.8)] {
            let head = head(&format!(r#"{{"log_probability":{parameters}}}"#)).unwrap();
            let read = head.read(&likely(5, 2..5), &[row(&[3], &[-0.8, -0.4, -0.6])]).unwrap();
            assert_all_close(&numbers(read.members()), &[expected]);
            assert!(head.read(&likely(5, 2..5), &[row(&[2], &[-0.8, -0.4])]).is_err());
        }
    }
}
