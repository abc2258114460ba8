//! Statistics over scores: how good a reward model is, how far two of them are apart, which data to keep.
//!
//! Every metric is a pure function of what is sent in. [`CATALOGUE`] is the list of them: an entry's parameters are the
//! metric's input, so that building one reads and checks a request, and [`Metric::compute`] answers it.

mod agreement_gate;
mod balance_score;
mod calibration;
mod correlation;
mod preference_loss;
mod preference_strength;
mod ranking_agreement;
mod reward_bench_2;
mod reward_difference;
mod reward_distance;
mod reward_math;
mod tournament;

#[cfg(test)]
mod laws;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::domain::catalogue::{Catalogue, Entry};

pub use preference_strength::Strength;
pub use tournament::{Standing, Tournament};

/// Every metric, in the order of the documentation.
pub const CATALOGUE: Catalogue<dyn Metric> = Catalogue {
    kind: "metric",
    entries: &[
        Entry::of::<ranking_agreement::RankingAgreement>(),
        Entry::of::<correlation::Correlation>(),
        Entry::of::<reward_distance::RewardDistance>(),
        Entry::of::<reward_math::RewardMath>(),
        Entry::of::<reward_bench_2::RewardBench2>(),
        Entry::of::<calibration::Calibration>(),
        Entry::of::<preference_strength::PreferenceStrength>(),
        Entry::of::<preference_loss::PreferenceLoss>(),
        Entry::of::<reward_difference::RewardDifference>(),
        Entry::of::<agreement_gate::AgreementGate>(),
        Entry::of::<balance_score::BalanceScore>(),
        Entry::of::<tournament::Tournament>(),
    ],
};

/// A statistic that was asked for, with its input.
pub trait Metric: fmt::Debug + Send + Sync {
    /// Computes it.
    ///
    /// # Errors
    /// When a result is not finite.
    fn compute(&self) -> Result<Value, MetricError>;
}

impl<R: Metric + 'static> From<R> for Box<dyn Metric> {
    fn from(rule: R) -> Self {
        Box::new(rule)
    }
}

/// Why a statistic has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The numbers are too large to compute with.
    #[error("{0} is not finite; send scores of smaller magnitude")]
    NonFinite(&'static str),
}

/// A result as JSON, once every number in it is known to be finite: JSON has no other numbers, and a `null` in their
/// place must only ever mean that the statistic is undefined.
fn answer(result: impl Serialize) -> Result<Value, MetricError> {
    // Only map keys that are no text can fail, and results have none.
    serde_json::to_value(result).map_err(|_| MetricError::NonFinite("the result"))
}

fn finite(what: &'static str, value: f64) -> Result<f64, MetricError> {
    if value.is_finite() { Ok(value) } else { Err(MetricError::NonFinite(what)) }
}

/// What two lists that are compared must satisfy.
fn equally_long<A, B>(first: &[A], second: &[B], least: usize) -> Result<(), String> {
    if first.len() != second.len() {
        return Err(format!("first has {} scores and second {}; send as many", first.len(), second.len()));
    }
    if first.len() < least {
        return Err(format!("there are {} scores; send at least {least}", first.len()));
    }
    Ok(())
}

/// What a list must satisfy that is averaged over.
fn not_empty<A>(what: &str, list: &[A]) -> Result<(), String> {
    if list.is_empty() { Err(format!("{what} is empty; send at least one")) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all metrics share.

    use super::*;

    pub(crate) fn metric(json: &str) -> Result<Value, String> {
        CATALOGUE.read(json)?.compute().map_err(|error| error.to_string())
    }

    /// The number at a JSON pointer of a metric's result.
    pub(crate) fn number(result: &Value, pointer: &str) -> f64 {
        result.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} of {result}"))
    }
}
