//! A model that reads two responses at once and says which is better.
//!
//! `P(y ≻ y′ | x)`, the general preference of direct Nash optimisation (Rosset et al. 2024) and of pairwise rankers
//! (Jiang et al. 2023, "LLM-Blender"). Such preferences may cycle, so that no score for each response explains them.
//! Whoever sends both orders can average `P` and `1 − P′`, which removes what the order itself does.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, Layout, finite, layout::one_row, parameters::Class};
use crate::{
    domain::{
        Reward, RowTensor, TokenizedInput,
        catalogue::{Law, Rule},
    },
    numeric::sigmoid,
};

/// The pairwise head.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pairwise {
    /// What the graph's numbers mean.
    read: Read,
}

impl Rule for Pairwise {
    const NAME: &'static str = "pairwise";
    const SUMMARY: &'static str = "The probability that the first of two responses in one input is the better one. \
        Output [batch, 1] for a logit, [batch, 2] for two classes.";
    const FORMULA: &'static str = "P(y > y2) = sigmoid(z), or sigmoid(z_first - z_second)";
    const SOURCE: &'static str = "Rosset et al. 2024, Direct Nash Optimization; Jiang et al. 2023, LLM-Blender";
    const EXAMPLES: &'static [&'static str] = &[r#"{"read": "logit"}"#, r#"{"read": {"two_class": {"first": 0}}}"#];
    const LAWS: &'static [Law] = &[Law::Probability];

    type Parameters = Self;
}

/// What the graph's numbers mean.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Read {
    /// One logit, above 0 when the first response is better.
    Logit,
    /// Logits of two classes.
    TwoClass {
        /// The class that says that the first response is better, 0 or 1.
        first: Class,
    },
}

impl Head for Pairwise {
    fn gives_probabilities(&self) -> bool {
        true
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![match self.read {
            Read::Logit => Layout::list(1),
            Read::TwoClass { .. } => Layout::list(2),
        }]]
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let logits = finite(one_row(self, input, rows)?)?;
        let difference = match self.read {
            Read::Logit => logits[0],
            Read::TwoClass { first } => first.log_odds(&logits),
        };
        Ok(HeadOutput::Pairwise { preference: Reward::new(sigmoid(difference))?, orders: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, row};
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn logits_become_the_probability_of_the_first() {
        let logit = head(r#"{"pairwise":{"read":"logit"}}"#).unwrap();
        let read = logit.read(&input(1), &[row(&[1], &[3.0_f32.ln()])]).unwrap();
        assert_all_close(&numbers(read.members()), &[0.75]);
        let classes = head(r#"{"pairwise":{"read":{"two_class":{"first":1}}}}"#).unwrap();
        let read = classes.read(&input(1), &[row(&[2], &[3.0_f32.ln(), 0.0])]).unwrap();
        assert_all_close(&numbers(read.members()), &[0.25]);
        assert!(head(r#"{"pairwise":{"read":{"two_class":{"first":2}}}}"#).is_err());
    }
}
