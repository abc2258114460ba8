//! One label of a classifier as the reward.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Head, HeadError, HeadOutput, Layout, finite,
    layout::{one_row, width},
    parameters::Names,
};
use crate::{
    domain::{Reward, RowTensor, TensorSpec, TokenizedInput, catalogue::Rule},
    numeric::{log_sigmoid, log_softmax, sigmoid, softmax},
};

/// Parameters of the classifier head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// All labels, in the graph's order.
    labels: Names,
    /// The label whose score is the reward.
    label: String,
    /// What of it is the reward.
    gives: Gives,
    /// Whether exactly one label applies, or each on its own.
    #[serde(default)]
    activation: Activation,
}

/// What of a label is the reward.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Gives {
    /// The raw logit.
    Logit,
    /// The probability, from 0 to 1.
    Probability,
    /// The logarithm of the probability, at most 0.
    LogProbability,
}

/// How logits become probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Activation {
    /// Exactly one label applies.
    #[default]
    Softmax,
    /// Each label applies or not, whatever the others do.
    Sigmoid,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Classifier {
    labels: usize,
    index: usize,
    gives: Gives,
    activation: Activation,
}

impl Rule for Classifier {
    const NAME: &'static str = "classifier";
    const SUMMARY: &'static str = "One label of a classifier, as its raw logit, its probability or its \
        log-probability. Output [batch, L] for L labels.";
    const FORMULA: &'static str =
        "r = z_l, p_l or log p_l, with p = softmax(z), or sigmoid(z_l) where labels are independent";
    const SOURCE: &'static str = "standard practice";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"labels": ["negative", "positive"], "label": "positive", "gives": "probability"}"#,
        r#"{"labels": ["toxic", "insult"], "label": "toxic", "gives": "log_probability", "activation": "sigmoid"}"#,
        r#"{"labels": ["safe"], "label": "safe", "gives": "logit", "activation": "sigmoid"}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Classifier {
    type Error = String;

    fn try_from(Parameters { labels, label, gives, activation }: Parameters) -> Result<Self, String> {
        let index = labels
            .iter()
            .position(|known| *known == label)
            .ok_or_else(|| format!("label {label:?} is none of the labels {}", labels.join(", ")))?;
        if labels.len() == 1 && activation == Activation::Softmax {
            return Err("a softmax over one label is always 1; write activation = \"sigmoid\"".to_owned());
        }
        Ok(Self { labels: labels.len(), index, gives, activation })
    }
}

impl Head for Classifier {
    fn gives_probabilities(&self) -> bool {
        matches!(self.gives, Gives::Probability)
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(self.labels)]]
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        Some(format!("name {} labels, in the graph's order", width(output)?))
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let logits = finite(one_row(self, input, rows)?)?;
        let score = match (self.gives, self.activation) {
            (Gives::Logit, _) => logits[self.index],
            (Gives::Probability, Activation::Softmax) => softmax(&logits)[self.index],
            (Gives::Probability, Activation::Sigmoid) => sigmoid(logits[self.index]),
            (Gives::LogProbability, Activation::Softmax) => log_softmax(&logits)[self.index],
            (Gives::LogProbability, Activation::Sigmoid) => log_sigmoid(logits[self.index]),
        };
        Ok(HeadOutput::Members(vec![Reward::new(score)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, output, row};
    use crate::numeric::testing::assert_all_close;

    fn score(gives: &str, activation: &str) -> Vec<f64> {
        let rest = format!(r#""label":"b","gives":"{gives}","activation":"{activation}""#);
        let head = head(&format!(r#"{{"classifier":{{"labels":["a","b"],{rest}}}}}"#)).unwrap();
        numbers(head.read(&input(1), &[row(&[2], &[0.0, 3.0_f32.ln()])]).unwrap().members())
    }

    #[test]
    fn logit_probability_and_log_probability() {
        assert_all_close(&score("logit", "softmax"), &[3.0_f64.ln()]);
        assert_all_close(&score("probability", "softmax"), &[0.75]);
        assert_all_close(&score("log_probability", "softmax"), &[0.75_f64.ln()]);
        assert_all_close(&score("probability", "sigmoid"), &[0.75]);
        assert_all_close(&score("log_probability", "sigmoid"), &[0.75_f64.ln()]);
    }

    #[test]
    fn labels_that_do_not_fit_are_refused_with_what_to_write() {
        assert!(head(r#"{"classifier":{"labels":["a"],"label":"b","gives":"logit"}}"#).is_err());
        assert!(head(r#"{"classifier":{"labels":["a"],"label":"a","gives":"logit"}}"#).is_err());
        let two = head(r#"{"classifier":{"labels":["a","b"],"label":"b","gives":"logit"}}"#).unwrap();
        assert!(two.check(&[&output(&[3])]).unwrap_err().to_string().contains("name 3 labels"));
    }
}
