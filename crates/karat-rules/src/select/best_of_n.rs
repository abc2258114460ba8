//! The best candidates by reward.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Candidates, Selected, Selection, SelectionError};
use crate::{
    domain::{
        Count,
        catalogue::{Law, Rule},
    },
    numeric::descending,
};

/// Best-of-n.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BestOfN {
    /// How many candidates to keep, at least 1; all when there are fewer.
    #[serde(default)]
    count: Count,
}

impl Rule for BestOfN {
    const NAME: &'static str = "best_of_n";
    const SUMMARY: &'static str = "The candidate with the highest reward, or the highest few; ties go to the lowest \
        index, and equal responses keep their own places.";
    const FORMULA: &'static str = "argmax_i r_i";
    const SOURCE: &'static str =
        "Stiennon et al. 2020, Learning to summarize from human feedback; Nakano et al. 2021, WebGPT";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"count": 2}"#];
    const LAWS: &'static [Law] = &[Law::KeepsOrder];

    type Parameters = Self;
}

impl Selection for BestOfN {
    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let mut order = descending(candidates.rewards());
        order.truncate(self.count.get());
        Ok(Selected::of(order))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{candidates, rule, select};

    #[test]
    fn golden_g1d_the_mean_the_worst_case_and_the_penalised_mean_pick_differently() {
        assert_eq!(select("\"best_of_n\"", &candidates(&[2.166667, 1.5, 1.8])), [0]);
        assert_eq!(select("\"best_of_n\"", &candidates(&[0.5, 1.4, 1.0])), [1]);
        assert_eq!(select("\"best_of_n\"", &candidates(&[1.472222, 1.496667, 1.626667])), [2]);
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(select(r#"{"best_of_n":{"count":9}}"#, &candidates(&[1.0, 2.0, 2.0, -0.0, 0.0])), [1, 2, 0, 3, 4]);
        assert!(rule(r#"{"best_of_n":{"count":0}}"#).is_err());
    }
}
