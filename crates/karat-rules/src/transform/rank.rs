//! The place of a response among those for its prompt: free of any scale.
//!
//! `r' = (rank − 1) / (k − 1)`, 0 for the worst and 1 for the best; tied responses share the mean of their ranks.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform, each_group};
use crate::{
    domain::catalogue::{Law, Rule},
    numeric::average_ranks,
};

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rank {}

impl Rule for Rank {
    const NAME: &'static str = "rank";
    const SUMMARY: &'static str = "The place of a response among those for its prompt, from 0 (worst) to 1 (best): \
        free of any scale, blind to margins. Tied responses share their place. Needs at least two responses.";
    const FORMULA: &'static str = "r' = (rank - 1) / (k - 1)";
    const SOURCE: &'static str = "standard statistics";
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::KeepsOrder, Law::Probability];

    type Parameters = Self;
}

impl Transform for Rank {
    fn needs(&self) -> Needs {
        Needs::GROUP
    }

    fn gives_probabilities(&self, _: bool) -> bool {
        true
    }

    fn apply(&self, group: &mut [Signal], _: &Context) -> Result<(), Refusal> {
        each_group(group, |rewards| {
            let last = (rewards.len() - 1) as f64;
            average_ranks(rewards).iter().map(|rank| (rank - 1.0) / last).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, together};

    #[test]
    fn tied_responses_share_their_place() {
        let places = together(r#"["rank"]"#, &[5.0, -1e30, 5.0, 7.0]);
        assert_all_close(&places, &[0.5, 0.0, 0.5, 1.0]);
        assert_all_close(&together(r#"["rank"]"#, &[3.0; 4]), &[0.5; 4]);
    }
}
