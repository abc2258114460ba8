//! Scales and shifts a reward, to bring models onto one scale or to flip a sign.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Pointwise, Transform};
use crate::domain::catalogue::{Entry, finite, parameter_schema, parameters};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "affine",
    summary: "Scales and shifts a reward: brings models onto one scale, or flips a sign. Keeps the order for a scale above 0.",
    formula: "r' = scale * r + offset",
    source: "standard practice",
    examples: &["{}", r#"{"scale": 2, "offset": -1}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { scale, offset } = parameters(value)?;
        Ok(Box::new(Affine { scale: finite("scale", scale)?, offset: finite("offset", offset)? }))
    },
};

/// Parameters of the affine map.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The factor.
    #[serde(default = "one")]
    scale: f64,
    /// What is added after scaling.
    #[serde(default)]
    offset: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Debug, Clone, Copy)]
struct Affine {
    scale: f64,
    offset: f64,
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
