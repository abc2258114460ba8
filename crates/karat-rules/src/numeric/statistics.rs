//! Means, variances, quantiles and correlation.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// What is subtracted from the count before a sum of squares is divided by it.
///
/// The literature's ensembles use the population's (0); some training code uses the sample's (1). In documents it
/// is the number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum DegreesOfFreedom {
    /// 0: divide by the count.
    #[default]
    Population,
    /// 1: divide by one less than the count, which needs at least two numbers.
    Sample,
}

impl DegreesOfFreedom {
    /// How many numbers a variance needs.
    #[must_use]
    pub fn least(self) -> usize {
        match self {
            Self::Population => 1,
            Self::Sample => 2,
        }
    }
}

impl JsonSchema for DegreesOfFreedom {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DegreesOfFreedom".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": [0, 1] })
    }
}

impl TryFrom<u8> for DegreesOfFreedom {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            0 => Ok(Self::Population),
            1 => Ok(Self::Sample),
            other => Err(format!("ddof must be 0 (population) or 1 (sample), found {other}")),
        }
    }
}

impl From<DegreesOfFreedom> for u8 {
    fn from(ddof: DegreesOfFreedom) -> Self {
        match ddof {
            DegreesOfFreedom::Population => 0,
            DegreesOfFreedom::Sample => 1,
        }
    }
}

/// The arithmetic mean, computed so that numbers near the largest `f64` don't overflow; 0 of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let sum: f64 = values.iter().sum();
    if sum.is_finite() { sum / count } else { values.iter().map(|value| value / count).sum() }
}

/// The variance about the mean; `None` when there are too few numbers for `ddof`.
pub(crate) fn variance(values: &[f64], ddof: DegreesOfFreedom) -> Option<f64> {
    if values.len() < ddof.least() {
        return None;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(squares / (values.len() - (ddof.least() - 1)) as f64)
}

/// The numbers in ascending order.
pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut ascending = values.to_vec();
    ascending.sort_unstable_by(f64::total_cmp);
    ascending
}

/// The quantile at `level` in 0…1 by linear interpolation at `level · (n − 1)`: type 7 of Hyndman and Fan 1996, the
/// default of NumPy and R. `None` of nothing.
pub(crate) fn quantile(values: &[f64], level: f64) -> Option<f64> {
    let ascending = sorted(values);
    let last = ascending.len().checked_sub(1)?;
    let position = level.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let weight = position - below as f64;
    let (low, high) = (ascending[below], ascending[(below + 1).min(last)]);
    // In this form equal neighbours give themselves, and the extremes of f64 don't overflow.
    Some(if low.total_cmp(&high).is_eq() { low } else { low * (1.0 - weight) + high * weight })
}

/// The standard normal's quantile at `level`, strictly between 0 and 1.
pub(crate) fn normal_quantile(level: f64) -> f64 {
    Normal::standard().inverse_cdf(level)
}

/// The interval of a share that Wilson's score test doesn't reject at `level`, such as 0.95 (Wilson 1927); `None` of
/// nothing. It stays within 0…1 and is honest for few trials, which the normal approximation isn't.
#[must_use]
pub fn wilson_interval(hits: u64, trials: u64, level: f64) -> Option<(f64, f64)> {
    if trials == 0 || hits > trials {
        return None;
    }
    let (count, z) = (trials as f64, normal_quantile(f64::midpoint(1.0, level)));
    let (share, square) = (hits as f64 / count, z * z);
    let centre = (share + square / (2.0 * count)) / (1.0 + square / count);
    let half = z * (share * (1.0 - share) / count + square / (4.0 * count * count)).sqrt() / (1.0 + square / count);
    Some(((centre - half).max(0.0), (centre + half).min(1.0)))
}

/// Pearson's correlation of two lists of one length; `None` when one of them is constant or the lengths differ.
#[must_use]
pub fn pearson(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.len() != second.len() {
        return None;
    }
    let unit = |values: &[f64]| -> Option<Vec<f64>> {
        // Scaled by the largest deviation, so that squares neither overflow nor underflow.
        let mean = mean(values);
        let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
        let scale = values.iter().fold(0.0_f64, |scale, value| scale.max(value.abs()));
        if largest <= scale * 1e-15 || !largest.is_finite() {
            return None;
        }
        let scaled: Vec<f64> = values.iter().map(|value| (value - mean) / largest).collect();
        let norm = scaled.iter().map(|value| value * value).sum::<f64>().sqrt();
        Some(scaled.iter().map(|value| value / norm).collect())
    };
    let (first, second) = (unit(first)?, unit(second)?);
    Some(first.iter().zip(&second).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{assert_all_close, assert_close};

    const REFERENCES: [f64; 5] = [-1.0, 0.0, 0.5, 1.0, 2.0];

    #[test]
    fn golden_g4_references() {
        assert_close(mean(&REFERENCES), 0.5);
        assert_close(quantile(&REFERENCES, 0.5).unwrap(), 0.5);
        assert_close(quantile(&REFERENCES, 0.85).unwrap(), 1.4);
        assert_close(normal_quantile(0.85), 1.036433);
    }

    #[test]
    fn golden_g1_both_variances() {
        let a = [1.0, 2.0, 0.5, 1.5, 1.0];
        assert_close(variance(&a, DegreesOfFreedom::Population).unwrap(), 0.26);
        assert_close(variance(&a, DegreesOfFreedom::Sample).unwrap(), 0.325);
        assert_close(variance(&[-0.3, 0.8, 2.6, -1.1], DegreesOfFreedom::Population).unwrap(), 1.925);
        assert_eq!(variance(&[0.7], DegreesOfFreedom::Sample), None);
    }

    #[test]
    fn extremes_have_a_mean_and_a_quantile() {
        assert_all_close(&[mean(&[f64::MAX, f64::MAX]) / f64::MAX], &[1.0]);
        assert!(quantile(&[-f64::MAX, f64::MAX], 0.5).unwrap().is_finite());
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn correlation_is_undefined_for_a_constant() {
        assert_eq!(pearson(&[1.0, 2.0], &[3.0, 3.0]), None);
        assert_close(pearson(&[1.0, 2.0, 3.0], &[1e200, 2e200, 3e200]).unwrap(), 1.0);
        assert_close(pearson(&[1.0, 2.0, 3.0], &[-1.0, -2.0, -3.0]).unwrap(), -1.0);
    }

    /// SciPy 1.17's `binomtest(hits, trials).proportion_ci(method="wilson")`.
    #[test]
    fn intervals_of_shares_are_those_of_scipy() {
        for (hits, trials, low, high) in [
            (15, 20, 0.531299, 0.888138),
            (0, 10, 0.0, 0.277533),
            (10, 10, 0.722467, 1.0),
            (333, 515, 0.604370, 0.686663),
            (1, 1, 0.206549, 1.0),
        ] {
            let (found_low, found_high) = wilson_interval(hits, trials, 0.95).unwrap();
            assert_all_close(&[found_low, found_high], &[low, high]);
        }
        assert_eq!(wilson_interval(0, 0, 0.95), None);
        assert_eq!(wilson_interval(2, 1, 0.95), None);
    }

    #[test]
    fn only_two_degrees_of_freedom_are_known() {
        assert!(serde_json::from_str::<DegreesOfFreedom>("2").is_err());
        assert_eq!(serde_json::from_str::<DegreesOfFreedom>("1").unwrap(), DegreesOfFreedom::Sample);
    }
}
