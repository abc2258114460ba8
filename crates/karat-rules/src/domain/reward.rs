//! A number that may be called a reward.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// A reward: a finite number, on whatever scale its model uses.
///
/// A trainer that receives NaN or infinity loses the whole step, so neither can be held in this type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Reward(f64);

/// A computation gave NaN or infinity.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is not a finite number")]
pub struct NonFinite(pub f64);

impl Reward {
    /// No reward and no loss.
    pub const ZERO: Self = Self(0.0);

    /// Takes a finite number.
    ///
    /// # Errors
    /// When `value` is NaN or infinite.
    pub fn new(value: f64) -> Result<Self, NonFinite> {
        if value.is_finite() { Ok(Self(value)) } else { Err(NonFinite(value)) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Reward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).and_then(|value| Self::new(value).map_err(D::Error::custom))
    }
}

impl Eq for Reward {}

impl Ord for Reward {
    fn cmp(&self, other: &Self) -> Ordering {
        // Zero and minus zero must tie, since ties are broken by index; `total_cmp` would part them.
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Reward {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finite_numbers_are_rewards() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(Reward::new(bad).is_err());
        }
        assert_eq!(Reward::new(-1.5).unwrap().get().to_bits(), (-1.5_f64).to_bits());
        assert_eq!(Reward::new(0.0).unwrap().cmp(&Reward::new(-0.0).unwrap()), Ordering::Equal);
    }
}
