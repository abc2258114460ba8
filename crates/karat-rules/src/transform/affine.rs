//! Scales and shifts a reward, to bring models onto one scale or to flip a sign.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Pointwise;
use crate::domain::catalogue::Rule;

/// The affine map.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Affine {
    /// The factor.
    #[serde(default = "one")]
    scale: f64,
    /// What is added after scaling.
    #[serde(default)]
    offset: f64,
}

impl Rule for Affine {
    const NAME: &'static str = "affine";
    const SUMMARY: &'static str = "Scales and shifts a reward: brings models onto one scale, or flips a sign. Keeps \
        the order for a scale above 0.";
    const FORMULA: &'static str = "r' = scale * r + offset";
    const SOURCE: &'static str = "standard practice";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"scale": 2, "offset": -1}"#];

    type Parameters = Self;
}

fn one() -> f64 {
    1.0
}

impl Pointwise for Affine {
    fn map(&self, value: f64) -> f64 {
        self.scale * value + self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_all_close, outcome};

    #[test]
    fn scales_then_shifts() {
        assert_all_close(&[outcome(r#"[{"affine":{"scale":-2,"offset":1}}]"#, 3.0)], &[-5.0]);
        assert_all_close(&[outcome(r#"["affine"]"#, 3.0)], &[3.0]);
    }
}
