//! The mean without the extremes at both ends.
//!
//! `⌊proportion · k⌋` members are left out at each end, as `scipy.stats.trim_mean` does.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Reward,
        catalogue::{Entry, Law, parameter_schema, parameters},
    },
    numeric::{mean, sorted},
};

pub(super) const ENTRY: Entry<dyn Aggregation> = Entry {
    name: "trimmed_mean",
    summary: "The mean of the members without the lowest and the highest share: a wild member at either end has no say.",
    formula: "R = mean of R_(m+1) .. R_(k-m), m = floor(proportion * k)",
    source: "standard statistics",
    examples: &[r#"{"proportion": 0.2}"#, r#"{"proportion": 0}"#],
    laws: &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { proportion } = parameters(value)?;
        if !(0.0..0.5).contains(&proportion) {
            return Err(format!("proportion must lie in 0 to below 0.5, found {proportion}"));
        }
        Ok(Box::new(TrimmedMean { proportion }))
    },
};

/// Parameters of the trimmed mean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The share left out at each end, from 0 to below 0.5.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 0.5))]
    proportion: f64,
}

#[derive(Debug, Clone, Copy)]
struct TrimmedMean {
    proportion: f64,
}

impl Aggregation for TrimmedMean {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let ascending = sorted(members.values());
        let left_out = (self.proportion * ascending.len() as f64).floor() as usize;
        Ok(Reward::new(mean(&ascending[left_out..ascending.len() - left_out]))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn both_ends_are_left_out() {
        assert_close(aggregate(r#"{"trimmed_mean":{"proportion":0.2}}"#, &[100.0, 1.0, 2.0, 3.0, -100.0]), 2.0);
        assert_close(aggregate(r#"{"trimmed_mean":{"proportion":0.49}}"#, &[7.0]), 7.0);
    }
}
