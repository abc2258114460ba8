//! The mean of the worst share of the members: softer than the worst case, harder than the mean.
//!
//! Conditional value at risk of the members' empirical distribution, `(1/(αk)) (Σ_{i≤m} R_(i) + (αk − m) R_(m+1))` with
//! `m = ⌊αk⌋` (Rockafellar and Uryasev 2002). `α = 1` is the mean; `α ≤ 1/k` is the worst case.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members};
use crate::{
    domain::{
        Number, Range, Reward,
        catalogue::{Law, Rule},
    },
    numeric::sorted,
};

/// The conditional value at risk.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cvar {
    /// The worst share that counts, above 0, at most 1.
    share: Number<SomeShare>,
}

impl Rule for Cvar {
    const NAME: &'static str = "cvar";
    const SUMMARY: &'static str = "The mean of the worst share of the members (conditional value at risk): share 1 is \
        the mean, 1/k or less the worst case.";
    const FORMULA: &'static str = "R = (1/(share k)) (sum_{i<=m} R_(i) + (share k - m) R_(m+1)), m = floor(share k)";
    const SOURCE: &'static str =
        "Rockafellar and Uryasev 2002, Conditional Value-at-Risk for General Loss Distributions";
    const EXAMPLES: &'static [&'static str] = &[r#"{"share": 0.4}"#, r#"{"share": 1}"#];
    const LAWS: &'static [Law] =
        &[Law::PermutationInvariant, Law::OneMemberIsIdentity, Law::WithinMembers, Law::MonotoneInMembers];

    type Parameters = Self;
}

/// A share of which something is left.
#[derive(Debug, Clone, Copy, PartialEq)]
enum SomeShare {}

impl Range for SomeShare {
    const LEAST: f64 = 0.0;
    const LEAST_INCLUDED: bool = false;
    const MOST: f64 = 1.0;
    const MUST: &'static str = "must lie above 0, up to 1";
}

impl Aggregation for Cvar {
    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let ascending = sorted(members.values());
        // A share below one member is that member: dividing by a tiny count would only lose digits.
        let count = (self.share.get() * ascending.len() as f64).max(1.0);
        let whole = count.floor() as usize;
        let part = count - whole as f64;
        let tail = ascending.get(whole).map_or(0.0, |next| next * (part / count));
        let sum: f64 = ascending.iter().take(whole).map(|value| value / count).sum();
        Ok(Reward::new(sum + tail)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate, assert_close};

    #[test]
    fn the_worst_share_is_averaged() {
        let members = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_close(aggregate(r#"{"cvar":{"share":0.4}}"#, &members), 1.5);
        assert_close(aggregate(r#"{"cvar":{"share":0.5}}"#, &members), (1.0 + 2.0 + 0.5 * 3.0) / 2.5);
        assert_close(aggregate(r#"{"cvar":{"share":1}}"#, &members), 3.0);
        assert_close(aggregate(r#"{"cvar":{"share":0.01}}"#, &members), 1.0);
    }
}
