//! A model that reads two responses at once and says which is better.
//!
//! `P(y ≻ y′ | x)`, the general preference of direct Nash optimisation (Rosset et al. 2024) and of pairwise rankers
//! (Jiang et al. 2023, "LLM-Blender"). Such preferences may cycle, so that no score for each response explains them.
//! Whoever sends both orders can average `P` and `1 − P′`, which removes what the order itself does.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, HeadShape, Layout, finite, layout::arrangement};
use crate::{
    domain::{
        Reward, RowTensor, TokenizedInput,
        catalogue::{Entry, Law, parameter_schema, parameters},
    },
    numeric::sigmoid,
};

pub(super) const ENTRY: Entry<dyn Head> = Entry {
    name: "pairwise",
    summary: "The probability that the first of two responses in one input is the better one. Output [batch, 1] for a \
              logit, [batch, 2] for two classes.",
    formula: "P(y > y2) = sigmoid(z), or sigmoid(z_first - z_second)",
    source: "Rosset et al. 2024, Direct Nash Optimization; Jiang et al. 2023, LLM-Blender",
    examples: &[r#"{"read": "logit"}"#, r#"{"read": {"two_class": {"first": 0}}}"#],
    laws: &[Law::Probability],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { read } = parameters(value)?;
        match read {
            Read::TwoClass { first } if first > 1 => {
                Err(format!("two classes are counted 0 and 1, found first = {first}"))
            }
            Read::TwoClass { .. } | Read::Logit => Ok(Box::new(Pairwise { read })),
        }
    },
};

/// Parameters of the pairwise head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// What the graph's numbers mean.
    read: Read,
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
        #[schemars(range(max = 1))]
        first: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Pairwise {
    read: Read,
}

impl Head for Pairwise {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![match self.read {
            Read::Logit => Layout::list(1),
            Read::TwoClass { .. } => Layout::list(2),
        }]]
    }

    fn shape(&self) -> HeadShape {
        HeadShape::of(1)
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        arrangement(self.name(), &self.layouts(), input, rows)?;
        let logits = finite(rows[0].values())?;
        let difference = match self.read {
            Read::Logit => logits[0],
            Read::TwoClass { first } => logits[first] - logits[1 - first],
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
