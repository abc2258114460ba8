//! Caps a reward from below, from above, or both.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Pointwise, Transform};
use crate::domain::catalogue::{Entry, Law, parameter_schema, parameters};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "clip",
    summary: "Keeps a reward within a range, so that no single score dominates a batch.",
    formula: "r' = min(max(r, min), max)",
    source: "standard practice",
    examples: &[r#"{"min": -5, "max": 5}"#, r#"{"max": 3}"#],
    laws: &[Law::KeepsOrder],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let parameters: Parameters = parameters(value)?;
        let clip =
            Clip { min: parameters.min.unwrap_or(f64::NEG_INFINITY), max: parameters.max.unwrap_or(f64::INFINITY) };
        if parameters.min.is_none() && parameters.max.is_none() {
            return Err("name min, max or both".to_owned());
        }
        if clip.min.is_nan() || clip.max.is_nan() || clip.min > clip.max {
            return Err(format!("min {} is above max {}; swap them", clip.min, clip.max));
        }
        Ok(Box::new(clip))
    },
};

/// Parameters of the clip; at least one of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The lowest reward that passes.
    #[serde(default)]
    min: Option<f64>,
    /// The highest reward that passes.
    #[serde(default)]
    max: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Clip {
    min: f64,
    max: f64,
}

impl Pointwise for Clip {
    fn map(&self, value: f64) -> f64 {
        value.max(self.min).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, chain, outcome};

    #[test]
    fn caps_both_sides_or_one() {
        let both = r#"[{"clip":{"min":-5,"max":5}}]"#;
        assert_all_close(&[outcome(both, -7.0), outcome(both, 0.3), outcome(both, 9.0)], &[-5.0, 0.3, 5.0]);
        assert_all_close(
            &[outcome(r#"[{"clip":{"min":0}}]"#, -1.0), outcome(r#"[{"clip":{"min":0}}]"#, 9.0)],
            &[0.0, 9.0],
        );
    }

    #[test]
    fn a_range_that_is_empty_or_upside_down_is_refused() {
        assert!(chain(r#"[{"clip":{}}]"#, false).is_err());
        assert!(chain(r#"[{"clip":{"min":1,"max":0}}]"#, false).is_err());
    }
}
