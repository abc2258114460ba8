//! A quantile of the members: between the worst case (0) and the best (1).
//!
//! Linear interpolation at `level · (k − 1)` over the sorted members: type 7 of Hyndman and Fan 1996.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Reward,
        catalogue::{Entry, Law, parameter_schema, parameters, share},
    },
    numeric::quantile,
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "quantile",
    summary: "A quantile of the members, by linear interpolation: 0 is the worst case, 0.5 the median, 1 the best case.",
    formula: "R = (1-f) R_(j) + f R_(j+1), j + f = level * (k-1), members sorted and counted from 0",
    source: "Hyndman and Fan 1996, Sample Quantiles in Statistical Packages, type 7",
    examples: &[r#"{"level": 0.25}"#, r#"{"level": 0}"#],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { level } = parameters(value)?;
        Ok(Box::new(Quantile { level: share("level", level)? }))
    },
};

/// Parameters of the quantile.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Which quantile, from 0 (lowest) to 1 (highest).
    #[schemars(range(min = 0.0, max = 1.0))]
    level: f64,
}

#[derive(Debug, Clone, Copy)]
struct Quantile {
    level: f64,
}

impl Aggregation for Quantile {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        Ok(Reward::new(quantile(members.values(), self.level).unwrap_or(f64::NAN))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn golden_g4_type_7() {
        assert_close(aggregate(r#"{"quantile":{"level":0.85}}"#, &[2.0, -1.0, 0.0, 1.0, 0.5]), 1.4);
        assert_close(aggregate(r#"{"quantile":{"level":0}}"#, &[2.0, -1.0]), -1.0);
        assert_close(aggregate(r#"{"quantile":{"level":1}}"#, &[2.0, -1.0]), 2.0);
    }
}
