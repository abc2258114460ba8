//! Standardises a reward by a mean and a deviation that were measured before.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Pointwise;
use crate::domain::{
    Positive,
    catalogue::{Law, Rule},
};

/// The standardisation.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ZScore {
    /// The mean that becomes 0.
    mean: f64,
    /// The deviation that becomes 1, above 0.
    deviation: Positive,
}

impl Rule for ZScore {
    const NAME: &'static str = "z_score";
    const SUMMARY: &'static str = "Standardises a reward by a mean and a deviation that were measured before, such as \
        over a validation set: makes models with unlike scales comparable, the same for every request.";
    const FORMULA: &'static str = "r' = (r - mean) / deviation";
    const SOURCE: &'static str = "standard practice";
    const EXAMPLES: &'static [&'static str] = &[r#"{"mean": 0.5, "deviation": 2}"#];
    const LAWS: &'static [Law] = &[Law::KeepsOrder];

    type Parameters = Self;
}

impl Pointwise for ZScore {
    fn map(&self, value: f64) -> f64 {
        (value - self.mean) / self.deviation.get()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, chain, outcome};

    #[test]
    fn the_mean_becomes_zero_and_the_deviation_one() {
        let z = r#"[{"z_score":{"mean":3,"deviation":2}}]"#;
        assert_all_close(&[outcome(z, 3.0), outcome(z, 5.0)], &[0.0, 1.0]);
        assert!(chain(r#"[{"z_score":{"mean":3,"deviation":0}}]"#, false).is_err());
    }
}
