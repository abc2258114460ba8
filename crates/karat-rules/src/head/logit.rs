//! One token's logit as the reward: a language model that was trained to give its reward at a token of its vocabulary.
//!
//! Llama-3.1-Nemotron-70B-Reward keeps the reward at token 0 of the logits that follow the dialogue (Wang et al. 2024,
//! "HelpSteer2-Preference: Complementing Ratings with Preferences").

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    HeadError, HeadOutput, ProbeError, Probing,
    probing::{dialogue, unexpected},
    rewards,
};
use crate::domain::{Probe, Reading, RowTensor, Sample, TokenizedInput, catalogue::Rule};

/// The logit head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logit {
    /// The token whose logit is the reward, as text.
    token: String,
}

impl Rule for Logit {
    const NAME: &'static str = "logit";
    const SUMMARY: &'static str = "The raw logit of one token as the first one of the assistant's next turn, after the \
        dialogue. A decoder's output logits.";
    const FORMULA: &'static str = "R = z_token";
    const SOURCE: &'static str = "Wang et al. 2024, HelpSteer2-Preference: Complementing Ratings with Preferences";
    const EXAMPLES: &'static [&'static str] = &[r#"{"token": "!"}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        if self.token.is_empty() {
            Err("token is empty; write the token whose logit is the reward".to_owned())
        } else {
            Ok(())
        }
    }
}

impl Probing for Logit {
    fn probes(&self, sample: &Sample) -> Result<Vec<Probe>, ProbeError> {
        dialogue(sample)?;
        Ok(vec![Probe::NextLogit { sample: sample.clone(), word: self.token.clone() }])
    }

    fn read_pass(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        match (input.reading(), rows) {
            (Reading::Logits(..), [row]) if row.values().len() == 1 => Ok(HeadOutput::Members(rewards(row.values())?)),
            _ => Err(unexpected(Self::NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, row};
    use crate::{
        domain::{After, Probe, Reading, Sample},
        head::ProbeError,
        numeric::testing::assert_all_close,
    };

    #[test]
    fn the_logit_is_the_reward_as_it_is() {
        let head = head(r#"{"logit":{"token":"!"}}"#).unwrap();
        let probing = head.probing().unwrap();
        let sample = Sample::from_prompt("why?".to_owned(), "so".to_owned()).unwrap();
        let probes = probing.probes(&sample).unwrap();
        assert!(matches!(probes.as_slice(), [Probe::NextLogit { word, .. }] if word == "!"), "{probes:?}");
        assert_eq!(probing.probes(&Sample::Tokens(vec![1])), Err(ProbeError::WantsTurns));
        let asked = input(3).with_reading(Reading::Logits(After::End, [0].into())).unwrap();
        let read = head.read(&asked, &[row(&[1], &[-7.5])]).unwrap();
        assert_all_close(&numbers(read.members()), &[-7.5]);
        assert!(super::super::testing::head(r#"{"logit":{"token":""}}"#).is_err());
    }
}
