//! The best candidates by reward.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Candidates, Selected, Selection, SelectionError};
use crate::{
    domain::catalogue::{Entry, Law, parameter_schema, parameters},
    numeric::descending,
};

pub(super) const ENTRY: Entry<dyn Selection> = Entry {
    name: "best_of_n",
    summary: "The candidate with the highest reward, or the highest few; ties go to the lowest index, and equal \
              responses keep their own places.",
    formula: "argmax_i r_i",
    source: "Stiennon et al. 2020, Learning to summarize from human feedback; Nakano et al. 2021, WebGPT",
    examples: &["{}", r#"{"count": 2}"#],
    laws: &[Law::KeepsOrder],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { count } = parameters(value)?;
        if count == 0 {
            return Err("count must be at least 1".to_owned());
        }
        Ok(Box::new(BestOfN { count }))
    },
};

/// Parameters of best-of-n.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How many candidates to keep, at least 1; all when there are fewer.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    count: usize,
}

fn one() -> usize {
    1
}

#[derive(Debug, Clone, Copy)]
struct BestOfN {
    count: usize,
}

impl Selection for BestOfN {
    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let mut order = descending(candidates.rewards());
        order.truncate(self.count);
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
