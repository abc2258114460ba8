//! Weights a reward by how clear the preference behind it is.
//!
//! `β(d) = b (1 + w (1 − e^(−k d)))` for the margin `d = r(chosen) − r(rejected)`, kept within `[b, (1 + w) b]` (Zhang
//! et al. 2025, "MM-RLHF: The Next Step Forward in Multimodal LLM Alignment", where it scales the loss). Below a margin
//! of 0 the bare formula would leave that range, so the clamp is applied on both sides. The published code and text
//! disagree on `w`, so all three are required.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform};
use crate::domain::catalogue::{Entry, finite, not_negative, parameter_schema, parameters, positive};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "dynamic_scaling",
    summary: "Multiplies a reward by a weight that grows with the margin of its pair, from b to (1+w) b: clear \
              preferences count more. Needs the margin of each response.",
    formula: "r' = r * clamp(b (1 + w (1 - exp(-k d))), b, (1+w) b)",
    source: "Zhang et al. 2025, MM-RLHF: The Next Step Forward in Multimodal LLM Alignment",
    examples: &[r#"{"b": 0.1, "w": 0.5, "k": 0.5}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { b, w, k } = parameters(value)?;
        Ok(Box::new(DynamicScaling::new(b, w, k)?))
    },
};

/// Parameters of the weight.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The weight at a margin of 0, above 0. The paper uses 0.1.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    b: f64,
    /// How much larger the weight may grow, as a share of `b`, at least 0. The paper's text has 0.5, its script 0.1.
    #[schemars(range(min = 0.0))]
    w: f64,
    /// How fast it grows with the margin, above 0. The paper's text has 0.5.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    k: f64,
}

/// The weight of a pair by its margin.
#[derive(Debug, Clone, Copy)]
pub struct DynamicScaling {
    b: f64,
    w: f64,
    k: f64,
}

impl DynamicScaling {
    /// Takes the weight at a margin of 0, its relative growth and its rate.
    ///
    /// # Errors
    /// When `b` or `k` is not above 0, or `w` is below 0; the text says which.
    pub fn new(b: f64, w: f64, k: f64) -> Result<Self, String> {
        let scaling = Self { b: positive("b", b)?, w: not_negative("w", w)?, k: positive("k", k)? };
        finite("(1 + w) b", (1.0 + w) * b)?;
        Ok(scaling)
    }

    /// `β(d)`, in `[b, (1 + w) b]`.
    #[must_use]
    pub fn weight(&self, margin: f64) -> f64 {
        let growth = -(-self.k * margin).exp_m1();
        self.b * (1.0 + self.w * growth.clamp(0.0, 1.0))
    }
}

impl Transform for DynamicScaling {
    fn needs(&self) -> Needs {
        Needs { margins: true, ..Needs::default() }
    }

    fn apply(&self, group: &mut [Signal], context: &Context) -> Result<(), Refusal> {
        for (signal, margin) in group.iter_mut().zip(context.margins()) {
            let weight = self.weight(*margin);
            signal.numbers_mut().iter_mut().for_each(|number| *number *= weight);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_all_close, group},
        *,
    };

    #[test]
    fn golden_g7() {
        let margins = vec![-1.0, 0.0, 0.5, 1.0, 2.0, 10.0];
        let context = Context::default().with_margins(margins).unwrap();
        let weights = group(r#"[{"dynamic_scaling":{"b":0.1,"w":0.5,"k":0.5}}]"#, &[1.0; 6], &context).unwrap();
        assert_all_close(&weights, &[0.1, 0.1, 0.111060, 0.119673, 0.131606, 0.149663]);
    }

    #[test]
    fn extreme_margins_stay_in_range() {
        let scaling = DynamicScaling::new(0.1, 0.5, 0.5).unwrap();
        assert_all_close(&[scaling.weight(-1e30), scaling.weight(1e30)], &[0.1, 0.15]);
        assert!(DynamicScaling::new(0.0, 0.5, 0.5).is_err());
        assert!(DynamicScaling::new(0.1, -0.5, 0.5).is_err());
    }
}
