//! The mean without the extremes at both ends.
//!
//! `⌊proportion · k⌋` members are left out at each end, as `scipy.stats.trim_mean` does.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Number, Range, Reward,
        catalogue::{Law, Rule},
    },
    numeric::{mean, sorted},
};

/// The trimmed mean.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrimmedMean {
    /// The share left out at each end, from 0 to below 0.5.
    proportion: Number<BelowHalf>,
}

impl Rule for TrimmedMean {
    const NAME: &'static str = "trimmed_mean";
    const SUMMARY: &'static str =
        "The mean of the members without the lowest and the highest share: a wild member at either end has no say.";
    const FORMULA: &'static str = "R = mean of R_(m+1) .. R_(k-m), m = floor(proportion * k)";
    const SOURCE: &'static str = "standard statistics";
    const EXAMPLES: &'static [&'static str] = &[r#"{"proportion": 0.2}"#, r#"{"proportion": 0}"#];
    const LAWS: &'static [Law] =
        &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers];

    type Parameters = Self;
}

/// What can be left out at each end so that something stays.
#[derive(Debug, Clone, Copy, PartialEq)]
enum BelowHalf {}

impl Range for BelowHalf {
    const LEAST: f64 = 0.0;
    const MOST: f64 = 0.5;
    const MOST_INCLUDED: bool = false;
    const MUST: &'static str = "must lie in 0 to below 0.5";
}

impl Aggregation for TrimmedMean {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let ascending = sorted(members.values());
        let left_out = (self.proportion.get() * ascending.len() as f64).floor() as usize;
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
