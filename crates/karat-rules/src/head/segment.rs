//! Several scores for each segment of a response, such as a sub-sentence.
//!
//! `r_t = Σ_l Σ_i 1[t ends segment i] · w_l · R_l(segment i)` for heads `l` such as object, attribute and relation
//! hallucination, each a small classifier at the segment's last token (Jing and Du 2024, "FGAIF: Aligning Large
//! Vision-Language Models with Fine-grained AI Feedback"). Which number a class stands for, whether the likeliest class
//! or the expectation counts, and the weights could not be verified; they are required.

use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Head, HeadError, HeadOutput, HeadShape, Layout,
    layout::{arrangement, marks, of_token},
};
use crate::{
    domain::{Reward, RowTensor, TokenizedInput, catalogue::Rule},
    numeric::{descending, softmax},
};

/// Parameters of the segment head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// The heads' names, in the order of the graph's outputs, each with its weight.
    weights: IndexMap<String, f64>,
    /// The number that each class stands for, in the graph's order.
    classes: Vec<f64>,
    /// What of the classes counts.
    read: Read,
}

/// What of the classes counts.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Read {
    /// The mean of the classes' numbers, by their probabilities.
    Expectation,
    /// The likeliest class's number; the first of equals.
    Likeliest,
}

#[derive(Debug, Clone)]
pub(super) struct Segment {
    names: Arc<[String]>,
    weights: Vec<f64>,
    classes: Vec<f64>,
    read: Read,
}

impl Rule for Segment {
    const NAME: &'static str = "segment";
    const SUMMARY: &'static str = "Several scores for each segment of a response, read at the segments' ends, and \
        their weighted sum. One output [batch, sequence, C] for each head, with C classes.";
    const FORMULA: &'static str = "r_i = sum_l w_l R_l(segment i), R_l = sum_c p_c v_c or v_{argmax p}; R = sum_i r_i";
    const SOURCE: &'static str =
        "Jing and Du 2024, FGAIF: Aligning Large Vision-Language Models with Fine-grained AI Feedback";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"weights": {"object": 1, "attribute": 0.5, "relation": 0.5}, "classes": [-1, 0, 1], "read": "expectation"}"#,
        r#"{"weights": {"object": 1}, "classes": [0, 1], "read": "likeliest"}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Segment {
    type Error = &'static str;

    fn try_from(Parameters { weights, classes, read }: Parameters) -> Result<Self, &'static str> {
        if weights.is_empty() || classes.len() < 2 {
            return Err("name at least one head in weights and at least two classes");
        }
        let (names, weights): (Vec<String>, Vec<f64>) = weights.into_iter().unzip();
        Ok(Self { names: names.into(), weights, classes, read })
    }
}

impl Segment {
    fn score(&self, logits: &[f64]) -> f64 {
        match self.read {
            Read::Expectation => softmax(logits).iter().zip(&self.classes).map(|(p, value)| p * value).sum(),
            Read::Likeliest => self.classes[descending(logits)[0]],
        }
    }
}

impl Head for Segment {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::by_token(self.classes.len()); self.weights.len()]]
    }

    fn shape(&self) -> HeadShape {
        HeadShape::by_step()
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let marks = marks(input)?;
        arrangement(self, input, rows)?;
        let of_segment = |end: &usize| -> Result<Vec<f64>, HeadError> {
            rows.iter().map(|row| Ok(self.score(&of_token(row, input, *end)?))).collect()
        };
        let scores: Result<Vec<Vec<f64>>, _> = marks.iter().map(of_segment).collect();
        let scores = scores?;
        let rewards: Vec<f64> = scores
            .iter()
            .map(|segment| segment.iter().zip(&self.weights).map(|(score, weight)| score * weight).sum())
            .collect();
        let reward = Reward::new(rewards.iter().sum())?;
        Ok(HeadOutput::Segments { names: self.names.clone(), scores, rewards, reward })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, output, row};
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn segments_are_scored_at_their_ends_by_every_head() {
        let marked = input(3).with_steps(vec![0, 2]).unwrap();
        let object = row(&[3, 2], &[0.0, 3.0_f32.ln(), 9.0, 9.0, 0.0, 0.0]);
        let relation = row(&[3, 2], &[5.0, 0.0, 9.0, 9.0, 0.0, 5.0]);
        let read = |read: &str| {
            let rest = format!(r#""classes":[-1,1],"read":"{read}""#);
            let head = head(&format!(r#"{{"segment":{{"weights":{{"object":2,"relation":0.5}},{rest}}}}}"#)).unwrap();
            assert!(head.check(&[&output(&[0, 2]), &output(&[0, 2])]).is_ok());
            assert!(head.check(&[&output(&[0, 2])]).is_err());
            head.read(&marked, &[object.clone(), relation.clone()]).unwrap()
        };
        // likeliest: object (1, then -1 of two equals), relation (-1, 1)
        assert_all_close(read("likeliest").steps().unwrap(), &[1.5, -1.5]);
        let expected = read("expectation");
        let tanh = 2.5_f64.tanh();
        assert_all_close(expected.steps().unwrap(), &[2.0 * 0.5 - 0.5 * tanh, 0.5 * tanh]);
        assert_all_close(&numbers(expected.members()), &[1.0]);
    }
}
