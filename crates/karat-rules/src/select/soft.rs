//! Candidates drawn by their rewards, the same ones for the same seed.
//!
//! `P(i) ∝ exp(r_i / T)`; several are drawn without replacement. Each candidate's key is `r_i / T − log(−log u_i)` and
//! the highest keys win (the Gumbel trick; Kool et al. 2019, "Stochastic Beams and Where to Find Them"). `u_i` is the
//! i-th output of `ChaCha` with 8 rounds, seeded by `seed_from_u64`: its top 53 bits plus one half, over 2⁵³. The same
//! rewards, temperature and seed therefore give the same draw on every machine.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Candidates, Selected, Selection, SelectionError};
use crate::{
    domain::{Count, Positive, catalogue::Rule},
    numeric::{descending, softmax},
};

/// The draw.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Soft {
    /// The difference of rewards that makes a candidate e times as likely, above 0.
    temperature: Positive,
    /// What decides the draw.
    seed: u64,
    /// How many candidates to draw, at least 1, none twice; all when there are fewer.
    #[serde(default)]
    count: Count,
}

impl Rule for Soft {
    const NAME: &'static str = "soft";
    const SUMMARY: &'static str = "Candidates drawn with a probability that grows with their reward; a temperature \
        near 0 is the best, a high one is chance. The same seed draws the same candidates.";
    const FORMULA: &'static str = "P(i) = exp(r_i / temperature) / sum_j exp(r_j / temperature)";
    const SOURCE: &'static str = "Kool et al. 2019, Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"temperature": 0.5, "seed": 7}"#, r#"{"temperature": 1, "seed": 7, "count": 3}"#];

    type Parameters = Self;
}

impl Selection for Soft {
    fn select(&self, candidates: &Candidates) -> Result<Selected, SelectionError> {
        let best = candidates.rewards().iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let temperature = self.temperature.get();
        // Relative to the best, so that the quotient can only go to minus infinity, where the probability is 0. At the
        // ends of f64 the difference itself may: the largest negative number is as good.
        let logits: Vec<f64> = candidates.rewards().iter().map(|r| ((r - best) / temperature).max(f64::MIN)).collect();
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        let keys: Vec<f64> = logits
            .iter()
            .map(|logit| {
                let uniform = ((generator.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
                logit - (-uniform.ln()).ln()
            })
            .collect();
        let mut drawn = descending(&keys);
        drawn.truncate(self.count.get());
        Ok(Selected { indices: drawn, probabilities: Some(softmax(&logits)) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{candidates, rule, select};
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn the_same_seed_draws_the_same_candidates() {
        let rewards = candidates(&[0.1, 0.5, 0.2, 0.4]);
        let draw = |seed: u64| select(&format!(r#"{{"soft":{{"temperature":1,"seed":{seed},"count":4}}}}"#), &rewards);
        assert_eq!(draw(7), draw(7));
        assert!((0..20).any(|seed| draw(seed) != draw(7)));
        let mut all = draw(7);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let rewards = candidates(&[0.0, 3.0_f64.ln()]);
        let first = rule(r#"{"soft":{"temperature":1,"seed":1}}"#).unwrap().select(&rewards).unwrap();
        assert_all_close(&first.probabilities.unwrap(), &[0.25, 0.75]);
        let draws = 4_000;
        let second = (0..draws)
            .filter(|seed| select(&format!(r#"{{"soft":{{"temperature":1,"seed":{seed}}}}}"#), &rewards) == [1])
            .count();
        let share = second as f64 / f64::from(draws);
        assert!((share - 0.75).abs() < 0.03, "{share}");
    }

    #[test]
    fn cold_is_the_best_even_at_the_ends_of_f64() {
        for rewards in [[1.0, 2.0, 1.5], [f64::MIN, f64::MAX, 0.0]] {
            assert_eq!(select(r#"{"soft":{"temperature":1e-9,"seed":3}}"#, &candidates(&rewards)), [1]);
        }
        assert!(rule(r#"{"soft":{"temperature":0,"seed":3}}"#).is_err());
        assert!(rule(r#"{"soft":{"temperature":1}}"#).is_err());
    }
}
