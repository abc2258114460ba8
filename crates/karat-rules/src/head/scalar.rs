//! One logit a response: the Bradley-Terry reward model.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, Layout, layout::one_row, rewards};
use crate::domain::{Dimension, RowTensor, TensorSpec, TokenizedInput, catalogue::Rule};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scalar {}

impl Rule for Scalar {
    const NAME: &'static str = "scalar";
    const SUMMARY: &'static str = "One raw logit a response, as of a Bradley-Terry reward model or a cross-encoder. \
        Output [batch, 1] or [batch].";
    const FORMULA: &'static str = "r = logit";
    const SOURCE: &'static str =
        "Bradley and Terry 1952; Ouyang et al. 2022, Training language models to follow instructions";

    type Parameters = Self;
}

impl Head for Scalar {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(1)]]
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        match output.shape.as_slice() {
            [_, Dimension::Fixed(count)] => {
                Some(format!("write head = {{ multi = {{ members = {count} }} }} if they are an ensemble"))
            }
            [_, _, _] => Some("write head = { token = … } if they are scores of tokens".to_owned()),
            _ => None,
        }
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        Ok(HeadOutput::Members(rewards(one_row(self, input, rows)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{input, output, row},
        *,
    };
    use crate::domain::Reward;

    #[test]
    fn a_graph_with_several_scores_is_pointed_to_the_multi_head() {
        assert!(Scalar {}.check(&[&output(&[1])]).is_ok());
        assert!(Scalar {}.check(&[&output(&[])]).is_ok());
        let error = Scalar {}.check(&[&output(&[5])]).unwrap_err();
        assert!(error.to_string().contains("members = 5"), "{error}");
        assert!(Scalar {}.check(&[&output(&[1]), &output(&[1])]).unwrap_err().to_string().contains("2 outputs"));
    }

    #[test]
    fn a_logit_that_is_no_number_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(Scalar {}.read(&input(1), &[row(&[1], &[bad])]), Err(HeadError::NonFinite(_))));
        }
        let read = Scalar {}.read(&input(1), &[row(&[1], &[-0.5])]);
        assert_eq!(read, Ok(HeadOutput::Members(vec![Reward::new(-0.5).unwrap()])));
        assert!(Scalar {}.read(&input(1), &[row(&[2], &[0.0, 0.0])]).is_err());
    }
}
