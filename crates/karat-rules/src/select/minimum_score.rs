//! A bar that candidates must clear before another rule picks: sometimes none is good enough.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Available, Candidates, Selected, Selection, SelectionError};
use crate::domain::catalogue::{Choice, ChoiceError, Rule};

/// Parameters of the bar.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// The lowest reward that is good enough.
    threshold: f64,
    /// The rule that picks among the rest.
    #[serde(default = "best_of_n")]
    then: Choice,
}

fn best_of_n() -> Choice {
    Choice::named("best_of_n")
}

#[derive(Debug)]
pub(super) struct MinimumScore {
    threshold: f64,
    then: Box<dyn Selection>,
}

impl Rule for MinimumScore {
    const NAME: &'static str = "minimum_score";
    const SUMMARY: &'static str = "Lets another rule pick among the candidates that score at least a threshold, and \
        picks none when none does. A Bradley-Terry score has an arbitrary offset for each prompt: centre it before \
        comparing prompts.";
    const FORMULA: &'static str = "rule({ i : r_i >= threshold })";
    const SOURCE: &'static str = "this project's";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"threshold": 0}"#, r#"{"threshold": 0.5, "then": {"soft": {"temperature": 1, "seed": 7}}}"#];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for MinimumScore {
    type Error = ChoiceError;

    fn try_from(Parameters { threshold, then }: Parameters) -> Result<Self, ChoiceError> {
        Ok(Self { threshold, then: super::CATALOGUE.build(&then)? })
    }
}

impl Selection for MinimumScore {
    fn check(&self, available: &Available) -> Result<(), SelectionError> {
        self.then.check(available)
    }

    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let rewards = candidates.rewards();
        let kept: Vec<usize> = (0..rewards.len()).filter(|index| rewards[*index] >= self.threshold).collect();
        let Some(rest) = candidates.only(&kept) else {
            return Ok(Selected::of(Vec::new()));
        };
        let selected = self.then.select(&rest)?;
        let probabilities = selected.probabilities.map(|of_rest| {
            let mut all = vec![0.0; rewards.len()];
            for (index, probability) in kept.iter().zip(of_rest) {
                all[*index] = probability;
            }
            all
        });
        Ok(Selected { indices: selected.indices.into_iter().map(|index| kept[index]).collect(), probabilities })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{candidates, rule, select};
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn none_may_be_good_enough() {
        assert!(select(r#"{"minimum_score":{"threshold":0.5}}"#, &candidates(&[0.1, 0.4])).is_empty());
        assert_eq!(select(r#"{"minimum_score":{"threshold":0.4}}"#, &candidates(&[0.1, 0.4, 0.4])), [1]);
    }

    #[test]
    fn the_other_rule_speaks_of_the_callers_indices() {
        let json = r#"{"minimum_score":{"threshold":0,"then":{"soft":{"temperature":1,"seed":7,"count":3}}}}"#;
        let selected = rule(json).unwrap().select(&candidates(&[-1.0, 2.0, -3.0, 2.0])).unwrap();
        let mut indices = selected.indices;
        indices.sort_unstable();
        assert_eq!(indices, [1, 3]);
        assert_all_close(&selected.probabilities.unwrap(), &[0.0, 0.5, 0.0, 0.5]);
        let front = rule(r#"{"minimum_score":{"threshold":0,"then":"pareto"}}"#).unwrap();
        assert!(front.check(&candidates(&[1.0]).available()).is_err());
        assert!(rule(r#"{"minimum_score":{"threshold":0,"then":"best"}}"#).is_err());
    }
}
