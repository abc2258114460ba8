//! Weights a reward by how clear the preference behind it is.
//!
//! `β(d) = b (1 + w (1 − e^(−k d)))` for the margin `d = r(chosen) − r(rejected)`, kept within `[b, (1 + w) b]` (Zhang
//! et al. 2025, "MM-RLHF: The Next Step Forward in Multimodal LLM Alignment", where it scales the loss). Below a margin
//! of 0 the bare formula would leave that range, so the clamp is applied on both sides. The published code and text
//! disagree on `w`, so all three are required.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform};
use crate::domain::{NotNegative, Positive, catalogue::Rule};

/// The weight of a pair by its margin.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DynamicScaling {
    /// The weight at a margin of 0, above 0. The paper uses 0.1.
    b: Positive,
    /// How much larger the weight may grow, as a share of `b`, at least 0. The paper's text has 0.5, its script 0.1.
    w: NotNegative,
    /// How fast it grows with the margin, above 0. The paper's text has 0.5.
    k: Positive,
}

impl Rule for DynamicScaling {
    const NAME: &'static str = "dynamic_scaling";
    const SUMMARY: &'static str = "Multiplies a reward by a weight that grows with the margin of its pair, from b to \
        (1+w) b: clear preferences count more. Needs the margin of each response.";
    const FORMULA: &'static str = "r' = r * clamp(b (1 + w (1 - exp(-k d))), b, (1+w) b)";
    const SOURCE: &'static str = "Zhang et al. 2025, MM-RLHF: The Next Step Forward in Multimodal LLM Alignment";
    const EXAMPLES: &'static [&'static str] = &[r#"{"b": 0.1, "w": 0.5, "k": 0.5}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        let most = (1.0 + self.w.get()) * self.b.get();
        if most.is_finite() { Ok(()) } else { Err(format!("(1 + w) b must be a finite number, found {most}")) }
    }
}

impl DynamicScaling {
    /// `β(d)`, in `[b, (1 + w) b]`.
    fn weight(&self, margin: f64) -> f64 {
        let growth = -(-self.k.get() * margin).exp_m1();
        self.b.get() * (1.0 + self.w.get() * growth.clamp(0.0, 1.0))
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
        let context = Context::default().with_margins(vec![-1e30, 1e30]).unwrap();
        let weights = |b: f64, w: f64| {
            group(&format!(r#"[{{"dynamic_scaling":{{"b":{b},"w":{w},"k":0.5}}}}]"#), &[1.0; 2], &context)
        };
        assert_all_close(&weights(0.1, 0.5).unwrap(), &[0.1, 0.15]);
        for (b, w) in [(0.0, 0.5), (0.1, -0.5), (1e308, 1e308)] {
            assert!(weights(b, w).is_err(), "{b} {w}");
        }
    }
}
