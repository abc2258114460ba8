//! A quantile of the members: between the worst case (0) and the best (1).
//!
//! Linear interpolation at `level · (k − 1)` over the sorted members: type 7 of Hyndman and Fan 1996.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Reward, Share,
        catalogue::{Law, Rule},
    },
    numeric::quantile,
};

/// The quantile.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Quantile {
    /// Which quantile, from 0 (lowest) to 1 (highest).
    level: Share,
}

impl Rule for Quantile {
    const NAME: &'static str = "quantile";
    const SUMMARY: &'static str =
        "A quantile of the members, by linear interpolation: 0 is the worst case, 0.5 the median, 1 the best case.";
    const FORMULA: &'static str =
        "R = (1-f) R_(j) + f R_(j+1), j + f = level * (k-1), members sorted and counted from 0";
    const SOURCE: &'static str = "Hyndman and Fan 1996, Sample Quantiles in Statistical Packages, type 7";
    const EXAMPLES: &'static [&'static str] = &[r#"{"level": 0.25}"#, r#"{"level": 0}"#];
    const LAWS: &'static [Law] =
        &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers];

    type Parameters = Self;
}

impl Aggregation for Quantile {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        Ok(Reward::new(quantile(members.values(), self.level.get()).unwrap_or(f64::NAN))?)
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
