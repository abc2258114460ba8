//! Whether several judges agree on a preference.
//!
//! A pair is kept only if every judge puts the same response first; how far they are apart is their symmetric divergence,
//! and how unsure each is, its entropy (Self-consistent internal rewards, Zhou et al. 2025). Sources differ on whether
//! the two directions of the divergence are summed or averaged, so both are given.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, not_empty};
use crate::domain::catalogue::Rule;

/// What judges say of pairs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgreementGate {
    /// For each pair of responses, each judge's probability that the first is better, strictly between 0 and 1.
    pairs: Vec<Vec<f64>>,
}

impl Rule for AgreementGate {
    const NAME: &'static str = "agreement_gate";
    const SUMMARY: &'static str = "Whether several judges put the same response first, with their entropies and, for \
        each two of them, the largest symmetric divergence. A judge at exactly one half puts none first.";
    const FORMULA: &'static str = "keep = all p_j > 1/2 or all p_j < 1/2; D = KL(p|q) + KL(q|p), D / 2 for the mean; H \
        = -p log p - (1-p) log(1-p)";
    const SOURCE: &'static str = "Zhou et al. 2025, Self-Consistency of the Internal Reward Models Improves \
        Self-Rewarding Language Models (the gate and the divergence; which half of it the paper uses is unverified)";
    const EXAMPLES: &'static [&'static str] = &[r#"{"pairs": [[0.8, 0.7], [0.9, 0.3], [0.55, 0.52]]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        not_empty("pairs", &self.pairs)?;
        for pair in &self.pairs {
            if pair.len() < 2 {
                return Err("a pair needs the probabilities of at least two judges".to_owned());
            }
            if let Some(bad) = pair.iter().find(|p| !(**p > 0.0 && **p < 1.0)) {
                return Err(format!("a probability must lie between 0 and 1, both excluded, found {bad}"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize)]
struct Agreement {
    keep: bool,
    /// Summed over both directions; the largest over any two judges.
    divergence: f64,
    /// The mean of both directions.
    half_divergence: f64,
    entropies: Vec<f64>,
}

/// `KL(p‖q) + KL(q‖p)` of two events with these probabilities, strictly between 0 and 1, in nats.
fn symmetric_divergence(p: f64, q: f64) -> f64 {
    // Both directions together are (p − q)(logit p − logit q).
    (p - q) * (crate::numeric::logit(p) - crate::numeric::logit(q))
}

/// `−p log p − (1 − p) log(1 − p)`, in nats; 0 at certainty.
fn binary_entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    term(p) + term(1.0 - p)
}

impl Metric for AgreementGate {
    fn compute(&self) -> Result<Value, MetricError> {
        let agreement = |judges: &Vec<f64>| {
            let lowest = judges.iter().copied().fold(1.0, f64::min);
            let highest = judges.iter().copied().fold(0.0, f64::max);
            // The divergence grows with the distance, so that the two furthest judges have the largest.
            let divergence = symmetric_divergence(lowest, highest);
            Agreement {
                keep: lowest > 0.5 || highest < 0.5,
                divergence,
                half_divergence: divergence / 2.0,
                entropies: judges.iter().map(|p| binary_entropy(*p)).collect(),
            }
        };
        let pairs: Vec<Agreement> = self.pairs.iter().map(agreement).collect();
        answer(serde_json::json!({ "pairs": pairs }))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{metric, number},
        *,
    };
    use crate::numeric::testing::assert_close;

    #[test]
    fn golden_g18() {
        let result = metric(&format!(r#"{{"agreement_gate":{}}}"#, AgreementGate::EXAMPLES[0])).unwrap();
        for (pair, (half, keep)) in [(0.026950, true), (0.913357, false), (0.001809, true)].into_iter().enumerate() {
            assert_close(number(&result, &format!("/pairs/{pair}/half_divergence")), half);
            assert_close(number(&result, &format!("/pairs/{pair}/divergence")), 2.0 * half);
            assert_eq!(result["pairs"][pair]["keep"], keep);
        }
        assert_close(number(&result, "/pairs/0/entropies/0"), 0.500402);
    }

    #[test]
    fn one_half_agrees_with_nobody_and_certainty_is_refused() {
        let result = metric(r#"{"agreement_gate":{"pairs":[[0.5,0.9]]}}"#).unwrap();
        assert_eq!(result["pairs"][0]["keep"], false);
        for bad in ["[[0.5]]", "[[0.0,0.5]]", "[[1.0,0.5]]", "[]"] {
            assert!(metric(&format!(r#"{{"agreement_gate":{{"pairs":{bad}}}}}"#)).is_err(), "{bad}");
        }
        assert_close(binary_entropy(1.0), 0.0);
    }
}
