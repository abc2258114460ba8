//! What becomes of a sample that can't be scored beside others that can.
//!
//! A batch of a trainer's may hold one empty response. By default the request fails as a whole, since a reward that
//! nobody computed must not pass for one. A caller who would rather lose that sample than the batch says so, and is told
//! which samples it was and why.

use std::collections::BTreeMap;

use karat_rules::domain::{Reward, Sample};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ErrorKind, SampleReport, ScoreError, ScoreReport};

/// What becomes of a sample that can't be scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRefused {
    /// The request fails, with the reason.
    #[default]
    Fail,
    /// The others are scored, and this one is marked.
    Mark,
    /// The others are scored, and this number, as it is, stands for its reward.
    Reward(Reward),
}

/// A sample, or why what was sent is none.
pub type Draft = Result<Sample, String>;

/// A sample that wasn't scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Its place in the request.
    pub index: usize,
    /// What is wrong with it and what to change.
    pub reason: String,
    /// The number that the request states for it.
    pub reward: Option<Reward>,
}

impl OnRefused {
    /// Whether the other samples are scored all the same.
    #[must_use]
    pub fn spares_others(self) -> bool {
        self != Self::Fail
    }

    /// The refusal of one sample.
    pub(super) fn refusal(self, index: usize, reason: String) -> Refusal {
        let reward = match self {
            Self::Reward(reward) => Some(reward),
            Self::Fail | Self::Mark => None,
        };
        Refusal { index, reason, reward }
    }
}

/// Whether an error is one sample's own, which the others need not suffer for.
pub(super) fn is_of_one_sample(error: &ScoreError) -> bool {
    let one = matches!(
        error,
        ScoreError::Sample { .. } | ScoreError::Image { .. } | ScoreError::Probe { .. } | ScoreError::Head { .. }
    );
    one && matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLong)
}

/// The samples of a request that are still to be scored, by their places in it, and those that were refused.
#[derive(Debug)]
pub(super) struct Remaining {
    places: Vec<usize>,
    refused: Vec<Refusal>,
    on_refused: OnRefused,
}

impl Remaining {
    /// All of `samples` samples but those of `refused`.
    pub(super) fn new(samples: usize, refused: Vec<Refusal>, on_refused: OnRefused) -> Self {
        let all = samples + refused.len();
        let places = (0..all).filter(|place| refused.iter().all(|refusal| refusal.index != *place));
        Self { places: places.collect(), refused, on_refused }
    }

    /// Where in the request those stand that are left.
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// Takes out those that were refused, by their positions among those that were left.
    pub(super) fn take_out(&mut self, errors: &BTreeMap<usize, ScoreError>) {
        let mut position = 0;
        let (on_refused, refused) = (self.on_refused, &mut self.refused);
        self.places.retain(|place| {
            let error = errors.get(&position);
            position += 1;
            error.inspect(|error| refused.push(on_refused.refusal(*place, error.reason()))).is_none()
        });
        self.refused.sort_by_key(|refusal| refusal.index);
    }

    pub(super) fn into_refused(self) -> Vec<Refusal> {
        self.refused
    }
}

impl ScoreReport {
    /// What became of each sample, in the order of the request.
    #[must_use]
    pub fn into_outcomes(self) -> Vec<Result<SampleReport, Refusal>> {
        let (mut scored, mut refused) = (self.results.into_iter(), self.refused.into_iter().peekable());
        let all = scored.len() + refused.len();
        let outcome = |index| match refused.next_if(|refusal| refusal.index == index) {
            Some(refusal) => Some(Err(refusal)),
            None => scored.next().map(Ok),
        };
        let mut outcomes = Vec::with_capacity(all);
        outcomes.extend((0..all).filter_map(outcome));
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TextError;

    #[test]
    fn what_is_taken_out_keeps_its_place_in_the_request() {
        let stated = OnRefused::Reward(Reward::new(-1.0).unwrap());
        let mut remaining = Remaining::new(4, vec![stated.refusal(1, "blank".to_owned())], stated);
        assert_eq!(remaining.places(), [0, 2, 3, 4]);
        let no_tokens = |index| ScoreError::Sample { index, source: TextError::NoTokens };
        remaining.take_out(&[(0, no_tokens(0)), (2, no_tokens(2))].into());
        assert_eq!(remaining.places(), [2, 4]);
        let refused = remaining.into_refused();
        assert_eq!(refused.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [0, 1, 3]);
        assert!(refused.iter().all(|refusal| refusal.reward.map(Reward::get) == Some(-1.0)));
        assert!(!refused[0].reason.contains("sample 0"), "{}", refused[0].reason);
    }

    #[test]
    fn a_choice_is_a_word_or_a_number() {
        let read = |json| serde_json::from_str::<OnRefused>(json);
        assert_eq!(read(r#""mark""#).unwrap(), OnRefused::Mark);
        assert_eq!(read(r#"{"reward":-1}"#).unwrap(), OnRefused::Reward(Reward::new(-1.0).unwrap()));
        assert!(read(r#"{"reward":null}"#).is_err() && read(r#""skip""#).is_err());
    }
}
