//! The state of a trunk after the last token, for telling responses apart by meaning.
//!
//! It is no reward: its one number is the state's length. Selection rules that look for difference take the vectors.

use super::{
    Axis, Head, HeadError, HeadOutput, HeadShape, Layout, ProbeError, Probing, finite,
    probing::{DecoderOutput, single, unexpected},
};
use crate::domain::{
    Probe, Reward, RowTensor, Sample, TokenizedInput,
    catalogue::{Entry, NoParameters, parameter_schema, parameters},
};

pub(super) const ENTRY: Entry<dyn Head> = Entry {
    name: "embedding",
    summary: "The trunk's state at the last token, as a vector for selection rules that look for difference. No reward: \
              its one number is the vector's Euclidean length. A decoder's output hidden.",
    formula: "e = h_T; R = |e|",
    source: "this project's",
    examples: &["{}"],
    laws: &[],
    parameters: parameter_schema::<NoParameters>,
    build: |value| parameters::<NoParameters>(value).map(|_| Box::new(Embedding) as Box<dyn Head>),
};

#[derive(Debug, Clone, Copy)]
struct Embedding;

impl Head for Embedding {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout(vec![Axis::AtLeast(1)])]]
    }

    fn shape(&self) -> HeadShape {
        HeadShape::of(1)
    }

    fn gives_embedding(&self) -> bool {
        true
    }

    fn probing(&self) -> Option<&dyn Probing> {
        Some(self)
    }

    fn read(&self, _: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let [row] = rows else { return Err(unexpected(self.name())) };
        let values = finite(row.values())?;
        let length = Reward::new(values.iter().map(|value| value * value).sum::<f64>().sqrt())?;
        Ok(HeadOutput::Embedding { values, length })
    }
}

impl Probing for Embedding {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::LastState(single(sample)?)])
    }

    fn reads(&self) -> DecoderOutput {
        DecoderOutput::Hidden
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
