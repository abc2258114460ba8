//! One reward of a solution: its step rewards, weighted, plus 1 if it reached the right result.
//!
//! `R = α Σ r_k + Correct` (Gao et al. 2024, "On Designing Effective RL Reward at Training Time for LLM Reasoning").
//! The paper's `α` could not be verified; it is required. Whether a solution is correct comes with the request: a
//! reward model can't know it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Stage, Transform};
use crate::domain::catalogue::Rule;

/// The total.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessTotal {
    /// The weight of the step rewards beside the success reward of 1.
    alpha: f64,
}

impl Rule for ProcessTotal {
    const NAME: &'static str = "process_total";
    const SUMMARY: &'static str = "The weighted sum of the step rewards, plus 1 for a correct solution: one number a \
        response. Needs a process reward and the success of each response.";
    const FORMULA: &'static str = "R = alpha * sum_k r_k + [correct]";
    const SOURCE: &'static str = "Gao et al. 2024, On Designing Effective RL Reward at Training Time for LLM Reasoning";
    const EXAMPLES: &'static [&'static str] = &[r#"{"alpha": 0.5}"#];

    type Parameters = Self;
}

impl Transform for ProcessTotal {
    fn needs(&self) -> Needs {
        Needs { successes: true, ..Needs::default() }
    }

    fn stage(&self, before: Stage) -> Result<Stage, String> {
        match before {
            Stage::Outcome => before.needs_step_scores(),
            Stage::StepScores | Stage::StepRewards => Ok(Stage::Outcome),
        }
    }

    fn apply(&self, group: &mut [Signal], context: &Context) -> Result<(), Refusal> {
        for (signal, correct) in group.iter_mut().zip(context.successes()) {
            *signal = Signal::Outcome(self.alpha * signal.total() + if *correct { 1.0 } else { 0.0 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Chain, Context, Signal,
        testing::{assert_all_close, choices},
    };

    fn total(link: &str, scores: &[f64], correct: bool) -> f64 {
        let json = format!(r#"[{link}{{"process_total":{{"alpha":0.5}}}}]"#);
        let context = Context::default().with_successes(vec![correct]);
        let chain = Chain::build_for(&choices(&json), &context.available(true, 1)).unwrap();
        let mut group = [Signal::Steps(scores.to_vec())];
        chain.apply_with(&mut group, &context).unwrap();
        group[0].total()
    }

    #[test]
    fn golden_g3_totals() {
        let links = |eta: f64| {
            [
                String::new(),
                format!(r#"{{"step_clip":{{"eta":{eta}}}}},"#),
                r#""delta","#.to_owned(),
                format!(r#"{{"clip_then_delta":{{"eta":{eta}}}}},"#),
            ]
        };
        let totals = |eta: f64, scores: &[f64]| links(eta).map(|link| total(&link, scores, true));
        assert_all_close(&totals(0.7, &[0.9, 0.4, 0.6, 0.8]), &[2.35, 0.8, 1.45, 1.0]);
        assert_all_close(&totals(0.9, &[0.95, 0.97, 0.99, 0.2, 0.9]), &[3.005, 0.65, 1.475, 1.0]);
        let hacked = [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5];
        let sums = links(0.7).map(|link| total(&link, &hacked, false) / 0.5);
        assert_all_close(&sums, &[9.5, -0.2, 0.9, 0.0]);
    }
}
