//! Which token comes next.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// How tokens are chosen.
///
/// Invariants: the temperature is finite and at least 0; `top_p` lies above 0 and is at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    temperature: f64,
    top_p: f64,
    seed: u64,
}

/// Why tokens can't be chosen so.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// The temperature is negative or no number.
    #[error("temperature must be a number from 0 (always the likeliest token) upwards, found {0}")]
    Temperature(f64),
    /// The share of probability is none.
    #[error("top_p must lie above 0 and be at most 1, found {0}")]
    TopP(f64),
}

impl Sampling {
    /// Always the likeliest token; of equals the one with the lowest id.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0 };

    /// Draws by the softmax of the logits divided by `temperature`, out of the fewest likeliest tokens that make up
    /// `top_p` of the probability (Holtzman et al. 2020, nucleus sampling). A temperature of 0 is greedy. What is drawn
    /// depends on the seed and the logits alone.
    ///
    /// # Errors
    /// When a number is out of range.
    pub fn new(temperature: f64, top_p: f64, seed: u64) -> Result<Self, SamplingError> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(SamplingError::Temperature(temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP(top_p));
        }
        Ok(Self { temperature, top_p, seed })
    }

    /// The same with another seed, for the `index`-th of several texts.
    #[must_use]
    pub fn nth(self, index: u64) -> Self {
        Self { seed: self.seed.wrapping_add(index), ..self }
    }
}

/// The state of one text's draws.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// Starts anew.
    #[must_use]
    pub(super) fn new(sampling: Sampling) -> Self {
        Self { sampling, random: ChaCha8Rng::seed_from_u64(sampling.seed) }
    }

    /// The next token's id, and its log-probability under the model itself, before temperature and `top_p`; `None` when
    /// the logits are none or not finite.
    pub(super) fn pick(&mut self, logits: &[f32]) -> Option<Picked> {
        let largest = largest(logits)?;
        let peak = f64::from(logits[largest]);
        let log_total = logits.iter().map(|logit| (f64::from(*logit) - peak).exp()).sum::<f64>().ln() + peak;
        let index = if self.sampling.temperature > 0.0 { self.draw(logits, peak) } else { largest };
        let token = u32::try_from(index).ok()?;
        Some(Picked { token, log_probability: f64::from(logits[index]) - log_total })
    }

    fn draw(&mut self, logits: &[f32], peak: f64) -> usize {
        let Sampling { temperature, top_p, .. } = self.sampling;
        let weights: Vec<f64> = logits.iter().map(|logit| ((f64::from(*logit) - peak) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        // Tokens below this weight hold less than what the nucleus leaves out, all together: none of them is in it.
        #[expect(clippy::cast_precision_loss, reason = "a vocabulary is far smaller than 2^52")]
        let floor = total * (1.0 - top_p) / weights.len() as f64;
        let mut kept: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] >= floor).collect();
        if top_p < 1.0 {
            // A stable order, so that equals keep that of their ids.
            kept.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
            let mut mass = 0.0;
            let nucleus = kept.iter().position(|index| {
                mass += weights[*index];
                mass >= total * top_p
            });
            kept.truncate(nucleus.map_or(kept.len(), |last| last + 1));
        }
        let mass: f64 = kept.iter().map(|index| weights[*index]).sum();
        let mut left = self.uniform() * mass;
        for index in &kept {
            left -= weights[*index];
            if left < 0.0 {
                return *index;
            }
        }
        // Only rounding leads here. The likeliest token has a weight of 1, so it was kept; the last may have one of 0.
        kept.into_iter().max_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap_or_default()
    }

    /// Uniform in 0 to below 1.
    fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exactly what a double holds")]
        let draw = (self.random.next_u64() >> 11) as f64;
        draw / (1_u64 << 53) as f64
    }
}

/// A token that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Picked {
    /// Its id.
    pub token: u32,
    /// The natural logarithm of its probability.
    pub log_probability: f64,
}

/// The index of the largest number, the first of equals; `None` when there are none or one isn't finite.
fn largest(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if !logit.is_finite() {
            return None;
        }
        if *logit > logits[best] {
            best = index;
        }
    }
    (!logits.is_empty()).then_some(best)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draws(sampling: Sampling, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..count).map(|_| sampler.pick(logits).unwrap().token).collect()
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(draws(Sampling::GREEDY, &[0.5, 2.0, 2.0, -1.0], 2), [1, 1]);
        assert_eq!(Sampler::new(Sampling::GREEDY).pick(&[]), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(Sampler::new(Sampling::GREEDY).pick(&[0.0, bad]), None);
        }
        let picked = Sampler::new(Sampling::GREEDY).pick(&[0.0, 3.0_f32.ln()]).unwrap();
        assert!((picked.log_probability - 0.75_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for temperature in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(Sampling::new(temperature, 1.0, 0), Err(SamplingError::Temperature(_))));
        }
        for top_p in [0.0, -1.0, 1.1, f64::NAN] {
            assert!(matches!(Sampling::new(1.0, top_p, 0), Err(SamplingError::TopP(_))));
        }
    }

    /// Probabilities 0.5, 0.3 and 0.2: over 20,000 draws a share stays within 0.02 of its probability but once in
    /// millions of seeds.
    #[test]
    fn shares_follow_the_softmax_the_temperature_and_the_nucleus() {
        let logits = [0.3_f32.ln(), 0.5_f32.ln(), 0.2_f32.ln()];
        for (temperature, top_p, expected) in [
            (1.0, 1.0, [0.3, 0.5, 0.2]),
            // Squares of the probabilities, over their sum.
            (0.5, 1.0, [0.09 / 0.38, 0.25 / 0.38, 0.04 / 0.38]),
            (1.0, 0.8, [0.375, 0.625, 0.0]),
            (1.0, 0.4, [0.0, 1.0, 0.0]),
        ] {
            let drawn = draws(Sampling::new(temperature, top_p, 7).unwrap(), &logits, 20_000);
            for (token, expected) in expected.into_iter().enumerate() {
                let share = drawn.iter().filter(|id| **id == token as u32).count() as f64 / 20_000.0;
                assert!((share - expected).abs() < 0.02, "{temperature} {top_p} {token}: {share} is not {expected}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_same_seed_draws_the_same_and_never_outside_the_nucleus(
            logits in prop::collection::vec(-20.0..20.0_f32, 1..40),
            temperature in 0.05..3.0_f64,
            top_p in 0.05..=1.0_f64,
            seed: u64,
        ) {
            let sampling = Sampling::new(temperature, top_p, seed).unwrap();
            let drawn = draws(sampling, &logits, 16);
            prop_assert_eq!(&drawn, &draws(sampling, &logits, 16));
            // The nucleus by its definition: how much probability the strictly likelier tokens hold.
            let weights: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            for token in drawn {
                let own = weights[token as usize];
                let before: f64 = weights.iter().filter(|weight| **weight > own).sum();
                prop_assert!(before < total * top_p * (1.0 + 1e-9), "{token} of {logits:?}");
            }
        }
    }
}
