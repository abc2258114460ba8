//! How likely a user would go on with a word of praise, or of complaint.
//!
//! Follow-up likelihood (Zhou et al. 2024, "Enhancing LLM reward modelling by follow-up likelihood"): after the prompt and
//! the response, the user says each of a list of canned follow-ups, such as "Thanks, that helps." or "That's not what I
//! asked." A follow-up's likelihood is the mean log-probability of its own tokens and of no others: neither those of the
//! template around it nor raw logits. A category's score is the mean over its positive follow-ups less the mean over its
//! negative ones, the reward the mean over the categories.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, ProbeError, Probing,
    parameters::Names,
    probing::{dialogue, log_probabilities, of_one_graph, unexpected, with_user_turn},
};
use crate::{
    domain::{Probe, Reward, RowTensor, Sample, TokenizedInput, catalogue::Rule},
    numeric::mean,
};

/// Parameters of the follow-up head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// What the user may say next, by category; at least one.
    categories: IndexMap<String, FollowUps>,
}

/// The follow-ups of one category; at least one. A side without any counts as 0.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FollowUps {
    /// What a user says after a good response.
    #[serde(default)]
    positive: Vec<String>,
    /// What a user says after a bad response.
    #[serde(default)]
    negative: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct FollowUp {
    names: Names,
    lists: Vec<FollowUps>,
}

impl Rule for FollowUp {
    const NAME: &'static str = "follow_up";
    const SUMMARY: &'static str = "How much likelier a language model finds it that the user goes on with praise than \
        with a complaint, by lists of both for named categories. One pass for each follow-up, all sharing the \
        dialogue; a decoder's output logits.";
    const FORMULA: &'static str =
        "l(f) = mean_t log p(f_t | x, y, f_<t); S_c = mean l(positive) - mean l(negative); R = mean_c S_c";
    const SOURCE: &'static str = "Zhou et al. 2024, Enhancing LLM reward modelling by follow-up likelihood (FLR); how \
        the sides are combined is not told by its code";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"categories": {"relevance": {"positive": ["That is just what I asked."], "negative": ["That's off topic."]}}}"#,
        r#"{"categories": {"correctness": {"positive": ["You are right."], "negative": ["That's wrong.", "No."]},
                           "safety": {"negative": ["You shouldn't have told me that."]}}}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for FollowUp {
    type Error = String;

    fn try_from(Parameters { categories }: Parameters) -> Result<Self, String> {
        for (name, FollowUps { positive, negative }) in &categories {
            if positive.is_empty() && negative.is_empty() {
                return Err(format!("the category {name:?} has no follow-ups; write positive or negative ones"));
            }
            if positive.iter().chain(negative).any(|text| text.trim().is_empty()) {
                return Err(format!("the category {name:?} has an empty follow-up; remove it"));
            }
        }
        let (names, lists): (Vec<String>, Vec<FollowUps>) = categories.into_iter().unzip();
        Ok(Self { names: Names::named("categories", names)?, lists })
    }
}

impl Probing for FollowUp {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        let turns = dialogue(sample)?.messages();
        let texts = self.lists.iter().flat_map(|list| list.positive.iter().chain(&list.negative));
        // The response is the last turn before the follow-up.
        let kept = turns.len() - 1;
        Ok(texts.map(|text| Probe::LastTurn { turns: with_user_turn(turns, text.clone()), kept }).collect())
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let values = log_probabilities(Self::NAME, input, rows)?;
        Ok(HeadOutput::Members(vec![Reward::new(mean(&values))?]))
    }

    fn combine(&self, readings: &[Vec<&HeadOutput>]) -> Result<HeadOutput, HeadError> {
        let wanted = self.lists.iter().map(|list| list.positive.len() + list.negative.len()).sum::<usize>();
        let probes = of_one_graph(Self::NAME, readings)?;
        if probes.len() != wanted {
            return Err(unexpected(Self::NAME));
        }
        let mut likelihoods = probes.iter().flat_map(|probe| probe.members()).map(|reward| reward.get());
        let mut side = |list: &[String]| {
            let values: Vec<f64> = likelihoods.by_ref().take(list.len()).collect();
            if values.is_empty() { 0.0 } else { mean(&values) }
        };
        let scores: Vec<f64> = self.lists.iter().map(|list| side(&list.positive) - side(&list.negative)).collect();
        Ok(HeadOutput::Objectives {
            names: self.names.shared(),
            reward: Some(Reward::new(mean(&scores))?),
            scores: scores.into_iter().map(Reward::new).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, likely, numbers, row};
    use super::*;
    use crate::{domain::Role, numeric::testing::assert_all_close};

    const LISTS: &str = r#"{"follow_up":{"categories":{
        "relevance":{"positive":["yes","right on"],"negative":["no","off topic"]}}}}"#;

    /// G17 of the reward maths.
    #[test]
    fn golden_g17_praise_less_complaint() {
        let head = head(LISTS).unwrap();
        let read =
            |values: &[f32]| head.read(&likely(9, 4..4 + values.len()), &[row(&[values.len()], values)]).unwrap();
        let read = [read(&[-0.5, -1.0]), read(&[-0.8, -0.4, -0.6]), read(&[-2.0, -1.5]), read(&[-1.0, -1.4, -0.9])];
        let each: Vec<f64> = read.iter().flat_map(|output| numbers(output.members())).collect();
        assert_all_close(&each, &[-0.75, -0.6, -1.75, -1.1]);
        let combined = head.probing().unwrap().combine(&[read.iter().collect()]).unwrap();
        assert_all_close(&numbers(combined.members()), &[0.75]);
        let HeadOutput::Objectives { names, scores, .. } = &combined else { panic!("{combined:?}") };
        assert_eq!(names.as_ref(), ["relevance"]);
        assert_all_close(&numbers(scores), &[0.75]);
        assert!(head.probing().unwrap().combine(&[read[..3].iter().collect()]).is_err());
    }

    #[test]
    fn the_user_says_each_follow_up_after_the_response() {
        let head = head(LISTS).unwrap();
        let sample = Sample::from_prompt("why?".to_owned(), "so".to_owned()).unwrap();
        let probes = head.probing().unwrap().probes(&sample).unwrap();
        let last: Vec<(Role, &str)> = probes
            .iter()
            .map(|probe| {
                let Probe::LastTurn { turns, .. } = probe else { panic!("{probe:?}") };
                assert_eq!(turns.len(), 3);
                (turns[2].role, turns[2].content.as_str())
            })
            .collect();
        assert_eq!(last, ["yes", "right on", "no", "off topic"].map(|text| (Role::User, text)));
        let text = Sample::from_text("why? so".to_owned()).unwrap();
        assert_eq!(head.probing().unwrap().probes(&text), Err(ProbeError::WantsTurns));
    }

    #[test]
    fn categories_without_follow_ups_are_refused() {
        for bad in [r#"{}"#, r#"{"a":{}}"#, r#"{"a":{"positive":[" "]}}"#] {
            assert!(head(&format!(r#"{{"follow_up":{{"categories":{bad}}}}}"#)).is_err(), "{bad}");
        }
    }
}
