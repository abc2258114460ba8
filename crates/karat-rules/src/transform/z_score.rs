//! Standardises a reward by a mean and a deviation that were measured before.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Pointwise, Transform};
use crate::domain::catalogue::{Entry, Law, finite, parameter_schema, parameters, positive};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "z_score",
    summary: "Standardises a reward by a mean and a deviation that were measured before, such as over a validation \
              set: makes models with unlike scales comparable, the same for every request.",
    formula: "r' = (r - mean) / deviation",
    source: "standard practice",
    examples: &[r#"{"mean": 0.5, "deviation": 2}"#],
    laws: &[Law::KeepsOrder],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { mean, deviation } = parameters(value)?;
        Ok(Box::new(ZScore { mean: finite("mean", mean)?, deviation: positive("deviation", deviation)? }))
    },
};

/// Parameters of the standardisation.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The mean that becomes 0.
    mean: f64,
    /// The deviation that becomes 1, above 0.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    deviation: f64,
}

#[derive(Debug, Clone, Copy)]
struct ZScore {
    mean: f64,
    deviation: f64,
}

impl Pointwise for ZScore {
    fn map(&self, value: f64) -> f64 {
        (value - self.mean) / self.deviation
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
