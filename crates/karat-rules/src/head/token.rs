//! A reward for each token of the response.
//!
//! Three readings of a token-level output `[batch, sequence]` or `[batch, sequence, V]`:
//!
//! - `logit`: the token's number as it is.
//! - `prefix_probability`: `p_t = σ((1/t) Σ_{i≤t} z_i)`, the probability that the response is right as far as token
//!   `t`; the whole response's reward is `σ(mean z)`. With a threshold `θ`, a token's weight is
//!   `clamp((p_t − θ)/(1 − θ), 0, 1)` in a right response and `clamp((1 − p_t − θ)/(1 − θ), 0, 1)` in a wrong one (Lyu et
//!   al. 2025, "Exploring the Limit of Outcome Reward for Learning Mathematical Reasoning", OREAL; θ = 0.5 in its code).
//! - `label_log_probability`: `log softmax(z_t)` at one label, averaged over the response: for a tagger, how sure it is
//!   that nothing needs correction.
//!
//! Only tokens of the response count. Those that stand for no text (special tokens), and ids named in `ignore`, are
//! left out.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Axis, Head, HeadError, HeadOutput, HeadShape, Layout, TokenReward, TokenWeights,
    layout::{arrangement, of_token},
};
use crate::{
    domain::{Reward, RowTensor, TokenizedInput, catalogue::Rule},
    numeric::{log_softmax, mean, sigmoid},
};

/// The token head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// What a token's numbers mean.
    read: Read,
    /// Token ids that are left out, beside tokens that stand for no text.
    #[serde(default)]
    ignore: Vec<u32>,
}

impl Rule for Token {
    const NAME: &'static str = "token";
    const SUMMARY: &'static str = "A reward for each token of the response and their mean: raw logits, running \
        probabilities that the response is right so far, or the log-probability of a label. Output [batch, sequence] \
        or [batch, sequence, V].";
    const FORMULA: &'static str = "r_t = z_t, or sigmoid((1/t) sum_{i<=t} z_i), or log softmax(z_t)_label; R = mean_t \
        z_t, sigmoid(mean_t z_t) or mean_t r_t";
    const SOURCE: &'static str = "Lyu et al. 2025, Exploring the Limit of Outcome Reward for Learning Mathematical \
        Reasoning (OREAL); Omelianchuk et al. 2020, GECToR - Grammatical Error Correction: Tag, Not Rewrite";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"read": "logit"}"#,
        r#"{"read": {"prefix_probability": {"threshold": 0.5}}, "ignore": [0]}"#,
        r#"{"read": {"label_log_probability": {"label": 1}}}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        match self.read {
            Read::PrefixProbability { threshold } if !(0.0..1.0).contains(&threshold) => {
                Err(format!("threshold must lie in 0 to below 1, found {threshold}"))
            }
            Read::Logit | Read::PrefixProbability { .. } | Read::LabelLogProbability { .. } => Ok(()),
        }
    }
}

/// What a token's numbers mean.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Read {
    /// One number a token, taken as it is.
    Logit,
    /// One logit a token, averaged over the response so far.
    PrefixProbability {
        /// The probability above which a token is taken as right, and below one less of which as wrong.
        threshold: f64,
    },
    /// The log-probability of one label out of many.
    LabelLogProbability {
        /// The label's column, counted from 0.
        label: usize,
    },
}

impl Token {
    /// The positions of the response's tokens that stand for text.
    fn positions(&self, input: &TokenizedInput) -> Vec<usize> {
        let response = input.response();
        let speaks = |position: &usize| {
            let empty = input.offsets().is_some_and(|offsets| offsets[position - response.start].is_empty());
            !empty && !self.ignore.contains(&input.ids()[*position])
        };
        response.clone().filter(speaks).collect()
    }

    /// Each token's reward, and the one of the response.
    fn rewards(&self, columns: &[Vec<f64>]) -> (Vec<f64>, f64) {
        let first: Vec<f64> = columns.iter().map(|numbers| numbers[0]).collect();
        match self.read {
            Read::Logit => {
                let reward = mean(&first);
                (first, reward)
            }
            Read::PrefixProbability { .. } => {
                let mut sum = 0.0;
                let prefixes = first.iter().enumerate().map(|(index, logit)| {
                    sum += logit;
                    sigmoid(sum / (index + 1) as f64)
                });
                (prefixes.collect(), sigmoid(mean(&first)))
            }
            Read::LabelLogProbability { label } => {
                let rewards: Vec<f64> = columns.iter().map(|logits| log_softmax(logits)[label]).collect();
                let reward = mean(&rewards);
                (rewards, reward)
            }
        }
    }

    fn weights(&self, probability: f64) -> Option<TokenWeights> {
        let Read::PrefixProbability { threshold } = self.read else {
            return None;
        };
        let weight = |p: f64| ((p - threshold) / (1.0 - threshold)).clamp(0.0, 1.0);
        Some(TokenWeights { positive: weight(probability), negative: weight(1.0 - probability) })
    }
}

impl Head for Token {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![match self.read {
            Read::Logit | Read::PrefixProbability { .. } => Layout::by_token(1),
            Read::LabelLogProbability { label } => Layout(vec![Axis::Tokens, Axis::AtLeast(label + 1)]),
        }]]
    }

    fn shape(&self) -> HeadShape {
        HeadShape::by_token()
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let positions = self.positions(input);
        if positions.is_empty() {
            return Err(HeadError::NoTokens);
        }
        arrangement(self, input, rows)?;
        let columns: Result<Vec<Vec<f64>>, _> =
            positions.iter().map(|position| of_token(&rows[0], input, *position)).collect();
        let (rewards, reward) = self.rewards(&columns?);
        let start = input.response().start;
        let tokens = positions.iter().zip(rewards).map(|(position, reward)| TokenReward {
            position: *position,
            text: input.offsets().map(|offsets| offsets[position - start].clone()),
            reward,
            weights: self.weights(reward),
        });
        Ok(HeadOutput::Tokens { tokens: tokens.collect(), reward: Reward::new(reward)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{head, input, numbers, output, row},
        *,
    };
    use crate::{domain::Cut, numeric::testing::assert_all_close};

    fn tokens(output: &HeadOutput) -> &[TokenReward] {
        match output {
            HeadOutput::Tokens { tokens, .. } => tokens,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn golden_g10() {
        let head = head(r#"{"token":{"read":{"prefix_probability":{"threshold":0.5}}}}"#).unwrap();
        let read = head.read(&input(4), &[row(&[4], &[2.0, -1.0, 0.5, -3.0])]).unwrap();
        let of = |number: fn(&TokenReward) -> f64| tokens(&read).iter().map(number).collect::<Vec<_>>();
        assert_all_close(&of(|token| token.reward), &[0.880797, 0.622459, 0.622459, 0.407333]);
        assert_all_close(&of(|token| token.weights.unwrap().positive), &[0.761594, 0.244919, 0.244919, 0.0]);
        assert_all_close(&of(|token| token.weights.unwrap().negative), &[0.0, 0.0, 0.0, 0.185333]);
        assert_all_close(&numbers(read.members()), &[0.407333]);
    }

    #[test]
    fn a_label_is_averaged_over_the_tokens_that_stand_for_text() {
        let head = head(r#"{"token":{"read":{"label_log_probability":{"label":1}},"ignore":[9]}}"#).unwrap();
        // [CLS] prompt | two tokens of text, an ignored one, [SEP]
        let input = TokenizedInput::new(vec![1, 5, 6, 7, 9, 2], vec![0; 6], 2..6, Cut::default()).unwrap();
        let input = input.with_offsets(vec![0..3, 3..5, 5..6, 6..6]).unwrap();
        let z = 3.0_f32.ln();
        let row = row(&[6, 2], &[9.0, 0.0, 9.0, 0.0, 0.0, z, 0.0, 0.0, 9.0, 0.0, 9.0, 0.0]);
        let read = head.read(&input, &[row]).unwrap();
        let places: Vec<_> = tokens(&read).iter().map(|token| (token.position, token.text.clone())).collect();
        assert_eq!(places, [(2, Some(0..3)), (3, Some(3..5))]);
        assert_all_close(&numbers(read.members()), &[f64::midpoint(0.75_f64.ln(), 0.5_f64.ln())]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let head = head(r#"{"token":{"read":{"label_log_probability":{"label":212}}}}"#).unwrap();
        assert!(head.check(&[&output(&[0, 213])]).is_ok());
        assert!(head.check(&[&output(&[0, 212])]).is_err());
        assert!(head.check(&[&output(&[213])]).is_err());
        let logit = super::super::testing::head(r#"{"token":{"read":"logit"}}"#).unwrap();
        assert!(logit.check(&[&output(&[0])]).is_ok());
        assert!(logit.check(&[&output(&[0, 1])]).is_ok());
        let silent = TokenizedInput::new(vec![1], vec![0], 0..0, Cut::default()).unwrap();
        assert_eq!(logit.read(&silent, &[row(&[1], &[0.0])]), Err(HeadError::NoTokens));
        assert!(logit.read(&input(3), &[row(&[2], &[0.0, 0.0])]).is_err());
    }
}
