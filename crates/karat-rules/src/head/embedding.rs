//! The state of a trunk after the last token, for telling responses apart by meaning.
//!
//! It is no reward: its one number is the state's length. Selection rules that look for difference take the vectors.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, ProbeError, Probing, finite,
    probing::{DecoderOutput, single, unexpected},
};
use crate::domain::{Probe, Reward, RowTensor, Sample, TokenizedInput, catalogue::Rule};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Embedding {}

impl Rule for Embedding {
    const NAME: &'static str = "embedding";
    const SUMMARY: &'static str = "The trunk's state at the last token, as a vector for selection rules that look for \
        difference. No reward: its one number is the vector's Euclidean length. A decoder's output hidden.";
    const FORMULA: &'static str = "e = h_T; R = |e|";
    const SOURCE: &'static str = "this project's";

    type Parameters = Self;
}

impl Probing for Embedding {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::LastState(single(sample)?)])
    }

    fn read_pass(&self, _: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let [row] = rows else { return Err(unexpected(Self::NAME)) };
        let values = finite(row.values())?;
        let length = Reward::new(values.iter().map(|value| value * value).sum::<f64>().sqrt())?;
        Ok(HeadOutput::Embedding { values, length })
    }

    fn reads(&self) -> DecoderOutput {
        DecoderOutput::Hidden
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, row};
    use super::*;
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn the_vector_comes_back_with_its_length() {
        let head = head(r#"{"embedding":{}}"#).unwrap();
        let read = head.read(&input(2), &[row(&[2], &[3.0, -4.0])]).unwrap();
        let combined = head.probing().unwrap().combine(&[vec![&read]]).unwrap();
        assert_all_close(&numbers(combined.members()), &[5.0]);
        let HeadOutput::Embedding { values, .. } = combined else { panic!("{combined:?}") };
        assert_all_close(&values, &[3.0, -4.0]);
        assert_eq!(head.probing().unwrap().reads().name(), "hidden");
    }
}
