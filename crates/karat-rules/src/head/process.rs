//! A score for each step of a solution, read at the tokens that mark its end.
//!
//! Readings: two classes at each mark (Qwen2.5-Math-PRM's `<extra_0>`), a pair of vocabulary entries such as `+` and `-`
//! at each mark (Math-Shepherd, Wang et al. 2023; by number or, of a language model, by their text), or one logit (a plain
//! sigmoid). All are log-odds underneath, and the
//! reductions of RewardMATH (Kim et al. 2024) work on them, so that a probability which rounds to 1 does no harm.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Axis, Head, HeadError, HeadOutput, HeadShape, Layout, Probing,
    layout::{arrangement, marks, of_token},
    parameters::Class,
    step_tokens::{StepTokens, TwoTokens, steps},
};
use crate::{
    domain::{RowTensor, TokenizedInput, catalogue::Rule},
    numeric::Reduction,
};

/// Parameters of the process head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// What the numbers at a mark mean.
    read: Read,
    /// How the steps become one reward.
    reduction: Reduction,
}

/// What the numbers at a mark mean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Read {
    /// Logits of two classes.
    TwoClass {
        /// The class of a right step, 0 or 1.
        positive: Class,
    },
    /// Of a language model: the logits of two tokens, of which only these are computed with.
    TwoToken(TwoTokens),
    /// Logits of a vocabulary, two entries of which are compared.
    LabelPair {
        /// The entry of a right step, such as that of `+`.
        good: usize,
        /// The entry of a wrong step, such as that of `-`.
        bad: usize,
    },
    /// One logit.
    Sigmoid,
}

/// The process head.
#[derive(Debug, Clone)]
pub(super) enum Process {
    /// Reads numbers at the marks.
    Numbers { read: Numbers, reduction: Reduction },
    /// Asks a language model.
    Tokens(StepTokens),
}

/// Numbers at a mark, and what they mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers {
    TwoClass(Class),
    LabelPair { good: usize, bad: usize },
    Logit,
}

impl Rule for Process {
    const NAME: &'static str = "process";
    const SUMMARY: &'static str = "A probability for each step of a solution, read at the step marks, and one reward \
        by a reduction. Output [batch, sequence, 2], [batch, sequence, V] or [batch, sequence]; or two tokens of a \
        decoder's output logits.";
    const FORMULA: &'static str = "p_k = sigmoid(z_good - z_bad) at mark k; R = reduction of p_1 .. p_K";
    const SOURCE: &'static str = "Wang et al. 2023, Math-Shepherd; Zhang et al. 2025, The Lessons of Developing \
        Process Reward Models in Mathematical Reasoning; Kim et al. 2024, Evaluating Robustness of Reward Models for \
        Mathematical Reasoning";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"read": {"two_class": {"positive": 1}}, "reduction": "min"}"#,
        r#"{"read": {"two_token": {"positive": "+", "negative": "-"}}, "reduction": "min"}"#,
        r#"{"read": {"label_pair": {"good": 648, "bad": 387}}, "reduction": "prod"}"#,
        r#"{"read": "sigmoid", "reduction": "mean_logit"}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Process {
    type Error = String;

    fn try_from(Parameters { read, reduction }: Parameters) -> Result<Self, String> {
        let read = match read {
            Read::TwoToken(tokens) => {
                tokens.check()?;
                return Ok(Self::Tokens(StepTokens::new(Self::NAME, tokens, reduction)));
            }
            Read::LabelPair { good, bad } if good == bad => {
                return Err(format!("good and bad are both {good}; name two different vocabulary entries"));
            }
            Read::TwoClass { positive } => Numbers::TwoClass(positive),
            Read::LabelPair { good, bad } => Numbers::LabelPair { good, bad },
            Read::Sigmoid => Numbers::Logit,
        };
        Ok(Self::Numbers { read, reduction })
    }
}

impl Numbers {
    fn layout(self) -> Layout {
        match self {
            Self::TwoClass(_) => Layout::by_token(2),
            Self::LabelPair { good, bad } => Layout(vec![Axis::Tokens, Axis::AtLeast(good.max(bad) + 1)]),
            Self::Logit => Layout::by_token(1),
        }
    }

    fn log_odds(self, numbers: &[f64]) -> f64 {
        match self {
            Self::TwoClass(positive) => positive.log_odds(numbers),
            Self::LabelPair { good, bad } => numbers[good] - numbers[bad],
            Self::Logit => numbers[0],
        }
    }
}

impl Head for Process {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        match self {
            Self::Numbers { read, .. } => vec![vec![read.layout()]],
            Self::Tokens(tokens) => tokens.layouts(),
        }
    }

    fn shape(&self) -> HeadShape {
        HeadShape::by_step()
    }

    fn gives_probabilities(&self) -> bool {
        match self {
            Self::Numbers { reduction, .. } => reduction.keeps_probabilities(),
            Self::Tokens(tokens) => Head::gives_probabilities(tokens),
        }
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let (read, reduction) = match self {
            Self::Numbers { read, reduction } => (*read, *reduction),
            Self::Tokens(tokens) => return tokens.read(input, rows),
        };
        let marks = marks(input)?;
        arrangement(self, input, rows)?;
        let log_odds: Result<Vec<f64>, HeadError> =
            marks.iter().map(|mark| Ok(read.log_odds(&of_token(&rows[0], input, *mark)?))).collect();
        steps(&log_odds?, reduction)
    }

    fn probing(&self) -> Option<&dyn Probing> {
        match self {
            Self::Numbers { .. } => None,
            Self::Tokens(tokens) => Some(tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{head, input, numbers, output, row},
        *,
    };
    use crate::{
        domain::{After, Probe, Reading, Sample},
        numeric::{logit, testing::assert_all_close},
    };

    #[test]
    fn golden_g14_with_every_reading() {
        let z: Vec<f32> = [0.9, 0.5, 0.8].iter().map(|p| logit(*p) as f32).collect();
        let marked = input(5).with_steps(vec![1, 3, 4]).unwrap();
        let at_marks = |width: usize, column: usize| {
            let mut values = vec![0.0_f32; 5 * width];
            for (mark, z) in [1, 3, 4].into_iter().zip(&z) {
                values[mark * width + column] = *z;
            }
            row(&[5, width], &values)
        };
        for (read, row) in [
            (r#"{"two_class":{"positive":1}}"#, at_marks(2, 1)),
            (r#"{"label_pair":{"good":2,"bad":0}}"#, at_marks(4, 2)),
            ("\"sigmoid\"", at_marks(1, 0)),
        ] {
            let head = head(&format!(r#"{{"process":{{"read":{read},"reduction":"mean_logit"}}}}"#)).unwrap();
            let output = head.read(&marked, &[row]).unwrap();
            assert_all_close(output.steps().unwrap(), &[0.9, 0.5, 0.8]);
            assert_all_close(&numbers(output.members()), &[0.767546]);
        }
    }

    #[test]
    fn a_language_model_is_asked_for_two_tokens_at_each_step() {
        let head = head(r#"{"process":{"read":{"two_token":{"positive":"+","negative":"-"}},"reduction":"min"}}"#);
        let head = head.unwrap();
        let sample = Sample::from_prompt("1 + 1?".to_owned(), "2".to_owned()).unwrap();
        let probes = head.probing().unwrap().probes(&sample).unwrap();
        assert!(matches!(probes.as_slice(), [Probe::Steps { words, .. }] if words[..] == ["+", "-"]), "{probes:?}");
        let asked = input(5).with_steps(vec![1, 3]).unwrap();
        assert!(head.read(&asked, &[row(&[2, 2], &[1.0; 4])]).is_err(), "nobody asked for logits");
        let asked = asked.with_reading(Reading::Logits(After::Steps, [7, 8].into())).unwrap();
        let output = head.read(&asked, &[row(&[2, 2], &[5.0, 5.0, 101.0, 100.0])]).unwrap();
        assert_all_close(output.steps().unwrap(), &[0.5, 0.731059]);
        assert_all_close(&numbers(output.members()), &[0.5]);
        assert!(head.gives_steps());
    }

    #[test]
    fn a_probability_that_rounds_to_one_still_counts() {
        let head = head(r#"{"process":{"read":"sigmoid","reduction":"mean_logit"}}"#).unwrap();
        let marked = input(2).with_steps(vec![0, 1]).unwrap();
        let output = head.read(&marked, &[row(&[2], &[60.0, -60.0])]).unwrap();
        assert_all_close(&numbers(output.members()), &[0.5]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let two = head(r#"{"process":{"read":{"two_class":{"positive":1}},"reduction":"min"}}"#).unwrap();
        assert!(two.gives_steps());
        assert!(two.check(&[&output(&[0, 2])]).is_ok());
        assert!(two.check(&[&output(&[2])]).is_err());
        assert_eq!(two.read(&input(1), &[row(&[1, 2], &[0.0, 0.0])]), Err(HeadError::NoSteps));
        for bad in [
            r#"{"read":{"two_class":{"positive":2}},"reduction":"min"}"#,
            r#"{"read":{"label_pair":{"good":3,"bad":3}},"reduction":"min"}"#,
            r#"{"read":{"two_token":{"positive":"+","negative":"+"}},"reduction":"min"}"#,
            r#"{"read":{"two_token":{"positive":"","negative":"+"}},"reduction":"min"}"#,
            r#"{"read":"sigmoid"}"#,
            r#"{"read":"sigmoid","reduction":"median"}"#,
        ] {
            assert!(head(&format!(r#"{{"process":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
