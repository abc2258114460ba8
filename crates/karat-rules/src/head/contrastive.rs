//! Which tokens of a response a good answer would have, by asking one model for a good and for a bad one.
//!
//! T-REG (Zhou et al. 2024, "T-REG: Preference Optimization with Token-Level Reward Regularization"): the same response is
//! read after a prompt that asks for a better and one that asks for a worse answer. A token that the first makes likelier
//! earns up to 0.5, one that the second makes likelier loses as much. The mean over the response as its one reward is
//! this project's.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, HeadShape, ProbeError, Probing,
    log_probability::{Reduce, read_response},
    probing::{dialogue, differences, of_one_graph, tokens_of, unexpected},
};
use crate::{
    domain::{
        Message, Pattern, Probe, Reward, Role, RowTensor, Sample, TokenizedInput,
        catalogue::{Law, Rule},
    },
    numeric::{mean, sigmoid},
};

/// Parameters of the contrastive head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// What the last user's turn becomes to ask for a better answer; `{prompt}` stands for what the user said.
    better: String,
    /// What it becomes to ask for a worse answer.
    worse: String,
}

#[derive(Debug, Clone)]
pub(super) struct Contrastive {
    better: Pattern,
    worse: Pattern,
}

impl Rule for Contrastive {
    const NAME: &'static str = "contrastive";
    const SUMMARY: &'static str = "A reward for each token of the response and their mean: how much likelier a prompt \
        that asks for a better answer makes it than one that asks for a worse one. Two passes; a decoder's output \
        logits.";
    const FORMULA: &'static str =
        "r_t = sigmoid(log p(y_t | x_better, y_<t) - log p(y_t | x_worse, y_<t)) - 0.5; R = mean_t r_t";
    const SOURCE: &'static str = "Zhou et al. 2024, T-REG: Preference Optimization with Token-Level Reward \
        Regularization; the mean is this project's";
    const EXAMPLES: &'static [&'static str] = &[r#"{"better": "Give a helpful and correct answer.\n\n{prompt}",
                    "worse": "Give an unhelpful and wrong answer.\n\n{prompt}"}"#];
    const LAWS: &'static [Law] = &[Law::Bounded];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Contrastive {
    type Error = String;

    fn try_from(Parameters { better, worse }: Parameters) -> Result<Self, String> {
        let pattern =
            |key: &str, text: &str| Pattern::parse(text, &["prompt"]).map_err(|reason| format!("{key}: {reason}"));
        Ok(Self { better: pattern("better", &better)?, worse: pattern("worse", &worse)? })
    }
}

impl Probing for Contrastive {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        let conversation = dialogue(sample)?;
        let asked = conversation.context().iter().rposition(|turn| turn.role == Role::User);
        let asked = asked.ok_or(ProbeError::WantsPrompt)?;
        let probe = |pattern: &Pattern| {
            let mut turns: Vec<Message> = conversation.messages().to_vec();
            turns[asked].content = pattern.fill(&[&turns[asked].content]);
            // What a cut prompt would lose first is what it asks for.
            Probe::LastTurn { turns, kept: asked }
        };
        Ok(vec![probe(&self.better), probe(&self.worse)])
    }

    fn gives(&self) -> HeadShape {
        HeadShape::by_token()
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        read_response(Self::NAME, input, rows, Reduce::Mean)
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        let probes = of_one_graph(Self::NAME, readings)?;
        let [better, worse] = probes else { return Err(unexpected(Self::NAME)) };
        let (better, worse) = (tokens_of(Self::NAME, better)?, tokens_of(Self::NAME, worse)?);
        if better.len() != worse.len() {
            return Err(HeadError::mismatch(
                format!(
                    "the response has {} tokens after one prompt and {} after the other",
                    better.len(),
                    worse.len()
                ),
                "use a template that separates turns by tokens of their own",
            ));
        }
        let (tokens, rewards) = differences(better, worse, |difference| sigmoid(difference) - 0.5);
        Ok(HeadOutput::Tokens { tokens, reward: Reward::new(mean(&rewards))? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, likely, numbers, row};
    use super::*;
    use crate::{domain::Conversation, numeric::testing::assert_all_close};

    const HEAD: &str = r#"{"contrastive":{"better":"Well: {prompt}","worse":"Badly: {prompt}"}}"#;

    /// G9 of the reward maths.
    #[test]
    fn golden_g9_tokens_of_a_better_answer_gain() {
        let head = head(HEAD).unwrap();
        let read = |values: &[f32]| head.read(&likely(6, 3..6), &[row(&[3], values)]).unwrap();
        let (better, worse) = (read(&[-0.2, -2.0, -0.7]), read(&[-1.2, -0.5, -0.7]));
        let combined = head.probing().unwrap().combine(&[vec![&better, &worse]]).unwrap();
        let HeadOutput::Tokens { tokens, .. } = &combined else { panic!("{combined:?}") };
        let rewards: Vec<f64> = tokens.iter().map(|token| token.reward).collect();
        assert_all_close(&rewards, &[0.231059, -0.317574, 0.0]);
        assert_all_close(&numbers(combined.members()), &[(0.231059 - 0.317574) / 3.0]);
    }

    #[test]
    fn only_the_last_prompt_changes() {
        let head = head(HEAD).unwrap();
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let turns = vec![
            turn(Role::User, "hi"),
            turn(Role::Assistant, "hello"),
            turn(Role::User, "why?"),
            turn(Role::Assistant, "so"),
        ];
        let sample = Sample::Conversation(Conversation::new(turns).unwrap());
        let probes = head.probing().unwrap().probes(&sample).unwrap();
        let asked: Vec<String> = probes
            .iter()
            .map(|probe| {
                let Probe::LastTurn { turns, kept: 2 } = probe else { panic!("{probe:?}") };
                assert_eq!((turns[0].content.as_str(), turns[3].content.as_str()), ("hi", "so"));
                turns[2].content.clone()
            })
            .collect();
        assert_eq!(asked, ["Well: why?", "Badly: why?"]);
        let alone = Conversation::new(vec![turn(Role::Assistant, "so")]).unwrap();
        let refused = head.probing().unwrap().probes(&Sample::Conversation(alone));
        assert_eq!(refused, Err(ProbeError::WantsPrompt));
        assert!(super::super::testing::head(r#"{"contrastive":{"better":"x","worse":"{prompt}"}}"#).is_err());
    }
}
