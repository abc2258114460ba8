//! Whether a reward, taken as a probability of success, is one: outcomes of 0 and 1 by bins of the reward.

use karat_rules::numeric::sigmoid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const BINS: usize = 10;

/// Successes by bins of the probability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    bins: [Bin; BINS],
    squares: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Bin {
    count: u64,
    probabilities: f64,
    successes: u64,
}

/// Errors of a reward as a probability of success.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct CalibrationReport {
    /// How many outcomes were 0 or 1.
    pub outcomes: u64,
    /// The mean distance between probability and share of successes, over ten bins weighted by their counts (Guo et al.
    /// 2017).
    pub expected_calibration_error: f64,
    /// The mean square of probability less outcome (Brier 1950).
    pub brier: f64,
}

impl Calibration {
    /// Takes an outcome in, if it is 0 or 1. A reward that is no probability is one after the logistic function, as
    /// Bradley-Terry models mean it.
    pub(super) fn add(&mut self, reward: f64, probability: bool, outcome: f64) {
        if outcome != 0.0 && outcome.to_bits() != 1.0_f64.to_bits() {
            return;
        }
        let probability = if probability { reward.clamp(0.0, 1.0) } else { sigmoid(reward) };
        let bin = &mut self.bins[((probability * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.probabilities += probability;
        bin.successes += u64::from(outcome > 0.5);
        self.squares += (probability - outcome).powi(2);
    }

    pub(super) fn report(&self) -> Option<CalibrationReport> {
        let outcomes: u64 = self.bins.iter().map(|bin| bin.count).sum();
        let gaps: f64 = self.bins.iter().map(|bin| (bin.probabilities - bin.successes as f64).abs()).sum();
        let all = outcomes as f64;
        (outcomes > 0).then(|| CalibrationReport {
            outcomes,
            expected_calibration_error: gaps / all,
            brier: self.squares / all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers as in the metric `calibration`, whose bins of tenths hold one each but the two highest.
    #[test]
    fn errors_are_those_of_the_metric() {
        let mut calibration = Calibration::default();
        for (probability, outcome) in [(0.2, 0.0), (0.7, 1.0), (0.8, 1.0), (0.9, 0.0), (0.5, 0.3)] {
            calibration.add(probability, true, outcome);
        }
        let report = calibration.report().unwrap();
        assert_eq!(report.outcomes, 4);
        assert!((report.expected_calibration_error - (0.2 + 0.3 + 0.2 + 0.9) / 4.0).abs() < 1e-12);
        assert!((report.brier - (0.04 + 0.09 + 0.04 + 0.81) / 4.0).abs() < 1e-12);
        assert_eq!(Calibration::default().report(), None);
    }
}
