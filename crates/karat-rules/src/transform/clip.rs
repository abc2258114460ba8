//! Caps a reward from below, from above, or both.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Pointwise;
use crate::domain::catalogue::{Law, Rule};

/// The clip; at least one of its bounds.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Clip {
    /// The lowest reward that passes.
    #[serde(default)]
    min: Option<f64>,
    /// The highest reward that passes.
    #[serde(default)]
    max: Option<f64>,
}

impl Rule for Clip {
    const NAME: &'static str = "clip";
    const SUMMARY: &'static str = "Keeps a reward within a range, so that no single score dominates a batch.";
    const FORMULA: &'static str = "r' = min(max(r, min), max)";
    const SOURCE: &'static str = "standard practice";
    const EXAMPLES: &'static [&'static str] = &[r#"{"min": -5, "max": 5}"#, r#"{"max": 3}"#];
    const LAWS: &'static [Law] = &[Law::KeepsOrder];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        match (self.min, self.max) {
            (None, None) => Err("name min, max or both".to_owned()),
            (Some(min), Some(max)) if min > max => Err(format!("min {min} is above max {max}; swap them")),
            _ => Ok(()),
        }
    }
}

impl Pointwise for Clip {
    fn map(&self, value: f64) -> f64 {
        value.max(self.min.unwrap_or(f64::NEG_INFINITY)).min(self.max.unwrap_or(f64::INFINITY))
    }

    fn holds_at(&self, value: f64) -> bool {
        [self.min, self.max].into_iter().flatten().any(|bound| value.total_cmp(&bound).is_eq())
    }

    fn gives_probabilities(&self, before: bool) -> bool {
        let within = |bound: Option<f64>| bound.is_some_and(|bound| (0.0..=1.0).contains(&bound));
        match before {
            // A bound outside of what probabilities are changes none of them, or all to itself.
            true => self.min.is_none_or(|min| min <= 1.0) && self.max.is_none_or(|max| max >= 0.0),
            false => within(self.min) && within(self.max),
        }
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
