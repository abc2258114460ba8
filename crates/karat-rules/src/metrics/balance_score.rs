//! Whether self-generated data is both plentiful and right.
//!
//! For a query with `n` selected responses, of which `n′` are right and distinct: `min(n′/N*, 1) · n′/n` (Zeng et al.
//! 2024, "B-STaR: Monitoring and Balancing Exploration and Exploitation in Self-Taught Reasoners"); the score is the mean
//! over queries, and temperature and threshold are chosen where it is highest. The authors' code has `N* = 8`. A query
//! with nothing selected scores 0, by this project's convention.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, not_empty};
use crate::{domain::catalogue::Rule, numeric::mean};

/// What was selected, by query.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BalanceScore {
    /// At least one.
    queries: Vec<Query>,
    /// How many right responses a query should have.
    #[serde(default = "eight")]
    #[schemars(range(min = 1))]
    target: u64,
}

impl Rule for BalanceScore {
    const NAME: &'static str = "balance_score";
    const SUMMARY: &'static str = "Whether selected data is both plentiful and right, from 0 to 1: choose the \
        temperature and the threshold for which it is highest.";
    const FORMULA: &'static str = "mean over queries of min(n_right / target, 1) * n_right / n_selected";
    const SOURCE: &'static str =
        "Zeng et al. 2024, B-STaR: Monitoring and Balancing Exploration and Exploitation in Self-Taught Reasoners";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"queries": [{"selected": 8, "right": 6}, {"selected": 0, "right": 0}]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        not_empty("queries", &self.queries)?;
        if self.target == 0 {
            return Err("target must be at least 1".to_owned());
        }
        if let Some(query) = self.queries.iter().find(|query| query.right > query.selected) {
            return Err(format!("{} responses can't be right of {} selected", query.right, query.selected));
        }
        Ok(())
    }
}

fn eight() -> u64 {
    8
}

/// What was selected for one query.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Query {
    /// How many responses were selected.
    selected: u64,
    /// How many of them are right and distinct.
    right: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Scores {
    score: f64,
    queries: Vec<f64>,
}

/// The balance of one query: `selected` responses, of which `right` are right and distinct, where `target` are wanted;
/// from 0 to 1.
fn balance_score(right: u64, selected: u64, target: u64) -> f64 {
    if selected == 0 || target == 0 {
        return 0.0;
    }
    let right = right as f64;
    (right / target as f64).min(1.0) * (right / selected as f64)
}

impl Metric for BalanceScore {
    fn compute(&self) -> Result<Value, MetricError> {
        let queries: Vec<f64> =
            self.queries.iter().map(|query| balance_score(query.right, query.selected, self.target)).collect();
        answer(Scores { score: mean(&queries), queries })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{metric, number},
        *,
    };
    use crate::numeric::testing::assert_close;

    #[test]
    fn golden_g13() {
        for (right, selected, expected) in
            [(6, 8, 0.5625), (8, 8, 1.0), (8, 16, 0.5), (12, 20, 0.6), (0, 5, 0.0), (0, 0, 0.0)]
        {
            assert_close(balance_score(right, selected, 8), expected);
        }
        let result = metric(&format!(r#"{{"balance_score":{}}}"#, BalanceScore::EXAMPLES[0])).unwrap();
        assert_close(number(&result, "/score"), 0.28125);
        assert!(metric(r#"{"balance_score":{"queries":[{"selected":1,"right":2}]}}"#).is_err());
    }
}
