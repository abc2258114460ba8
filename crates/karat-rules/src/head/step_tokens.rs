//! Steps judged by a language model: which of two tokens it would write at each.
//!
//! Math-Shepherd writes a mark after each step and compares `+` with `-` there (Wang et al. 2023). RLHFlow's models make
//! each step a turn of the user's and compare what the assistant would answer (Xiong et al. 2024, "An Implementation of
//! Generative PRM"). How steps are written is the text's business; either way two logits stand at each step.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, HeadShape, ProbeError, Probing,
    layout::{marks, of_token},
    probing::single,
};
use crate::{
    domain::{Probe, Reading, Reward, RowTensor, Sample, TokenizedInput, catalogue::Named},
    numeric::{Reduction, sigmoid},
};

/// Two tokens as text, each exactly as the model would write it: a word of several tokens is refused when the model is
/// loaded.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TwoTokens {
    /// The token of a right step, such as `+`.
    positive: String,
    /// The token of a wrong step, such as `-`.
    negative: String,
}

impl TwoTokens {
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self { positive, negative } if positive.is_empty() || negative.is_empty() => {
                Err("positive or negative is empty; write the two tokens between which the model decides".to_owned())
            }
            Self { positive, negative } if positive == negative => {
                Err(format!("positive and negative are both {positive:?}; name two different tokens"))
            }
            Self { .. } => Ok(()),
        }
    }
}

/// What the process head asks of a language model.
#[derive(Debug, Clone)]
pub(super) struct StepTokens {
    head: &'static str,
    words: Arc<[String]>,
    reduction: Reduction,
}

impl StepTokens {
    /// As a part of the head of that name; the tokens must have been checked.
    pub(super) fn new(head: &'static str, tokens: TwoTokens, reduction: Reduction) -> Self {
        Self { head, words: [tokens.positive, tokens.negative].into(), reduction }
    }
}

impl Named for StepTokens {
    fn name(&self) -> &'static str {
        self.head
    }
}

impl Probing for StepTokens {
    fn gives_probabilities(&self) -> bool {
        self.reduction.keeps_probabilities()
    }

    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        Ok(vec![Probe::Steps { sample: single(sample)?, words: Arc::clone(&self.words) }])
    }

    fn gives(&self) -> HeadShape {
        HeadShape::by_step()
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let marks = marks(input)?;
        let row = match (input.reading(), rows) {
            (Reading::Logits(..), [row]) if row.shape() == [marks.len(), self.words.len()] => row,
            _ => {
                let shapes: Vec<_> = rows.iter().map(RowTensor::shape).collect();
                return Err(HeadError::mismatch(
                    format!("a pass returned shapes {shapes:?} where two logits at each step were asked for"),
                    format!("the {} head needs a decoder graph with an output \"logits\"", self.head),
                ));
            }
        };
        let log_odds = marks.iter().map(|mark| {
            let logits = of_token(row, input, *mark)?;
            Ok(logits[0] - logits[1])
        });
        steps(&log_odds.collect::<Result<Vec<_>, HeadError>>()?, self.reduction)
    }
}

/// The output of steps whose log-odds are known, at least one.
pub(super) fn steps(log_odds: &[f64], reduction: Reduction) -> Result<HeadOutput, HeadError> {
    let reward = Reward::new(reduction.apply_to_log_odds(log_odds)?)?;
    Ok(HeadOutput::Steps { scores: log_odds.iter().copied().map(sigmoid).collect(), reward })
}
