//! Squashes a reward into a symmetric range, with slope 1 at 0.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Pointwise, Transform};
use crate::domain::catalogue::{Entry, Law, parameter_schema, parameters, positive};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "tanh",
    summary: "Squashes a reward smoothly into -1 to 1, or into -range to range: no reward dominates, small ones stay \
              as they are.",
    formula: "r' = range * tanh(r / range)",
    source: "standard practice",
    examples: &["{}", r#"{"range": 0.5}"#],
    laws: &[Law::KeepsOrder, Law::Bounded],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { range } = parameters(value)?;
        Ok(Box::new(Tanh { range: positive("range", range)? }))
    },
};

/// Parameters of the squash.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The largest magnitude, above 0.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    range: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Debug, Clone, Copy)]
struct Tanh {
    range: f64,
}

impl Pointwise for Tanh {
    fn map(&self, value: f64) -> f64 {
        self.range * (value / self.range).tanh()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, outcome};

    #[test]
    fn small_rewards_stay_and_large_ones_saturate() {
        let squash = r#"[{"tanh":{"range":10}}]"#;
        assert_all_close(&[outcome(squash, 1e-4), outcome(squash, 1e9), outcome(squash, -1e9)], &[1e-4, 10.0, -10.0]);
    }
}
