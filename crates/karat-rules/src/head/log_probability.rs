//! How likely a language model finds a response, token by token.
//!
//! The plainest reward of a language model, and the one that CREAM uses where there is no reference model: the mean of
//! `log π(y_t | x, y_<t)` over the response's tokens (Wang et al. 2024, "CREAM: Consistency Regularized Self-Rewarding
//! Language Models"). Tokens of the template before and after the response don't count.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Head, HeadError, HeadOutput, HeadShape, Layout, ProbeError, Probing,
    probing::{log_probabilities, single, token_rewards, unexpected, vocabulary},
};
use crate::{
    domain::{
        Probe, Reward, RowTensor, Sample, TokenizedInput,
        catalogue::{Entry, parameter_schema, parameters},
    },
    numeric::mean,
};

pub(super) const ENTRY: Entry<dyn Head> = Entry {
    name: "log_probability",
    summary: "The mean, or the sum, of the log-probabilities of the response's tokens under a language model. A decoder's \
              output logits.",
    formula: "R = mean_t log p(y_t | x, y_<t), or their sum",
    source: "Wang et al. 2024, CREAM: Consistency Regularized Self-Rewarding Language Models (the reward without a \
             reference model)",
    examples: &["{}", r#"{"reduce": "sum"}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { reduce } = parameters(value)?;
        Ok(Box::new(LogProbability { reduce }))
    },
};

/// Parameters of the log-probability head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How the tokens' log-probabilities become one number.
    #[serde(default = "default_reduce")]
    reduce: Reduce,
}

fn default_reduce() -> Reduce {
    Reduce::Mean
}

/// How tokens' rewards become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reduce {
    /// Their mean, which doesn't favour short responses.
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

#[derive(Debug, Clone)]
struct LogProbability {
    reduce: Reduce,
}

impl Head for LogProbability {
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

impl Probing for LogProbability {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::Response(single(sample)?)])
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        match readings {
            [probes] if probes.len() == 1 => Ok(probes[0].clone()),
            _ => Err(unexpected(self.name())),
        }
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
