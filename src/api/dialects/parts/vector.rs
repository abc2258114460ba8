//! Rewards where a client expects vectors: as lists of numbers, or packed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// 32-bit floats in little-endian order, in base64.
    Base64,
}

/// A vector of one reward, or of the scores of a response's steps.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    /// A list of numbers.
    Float(Vec<f64>),
    /// A list of numbers for each step.
    Rows(Vec<[f64; 1]>),
    /// 32-bit floats in little-endian order, in base64.
    Base64(String),
}

impl Encoding {
    pub(crate) fn vector(self, reward: f64) -> Vector {
        match self {
            Self::Float => Vector::Float(vec![reward]),
            Self::Base64 => Vector::Base64(pack(&[reward])),
        }
    }

    /// One row of one number for each step.
    pub(crate) fn rows(self, steps: &[f64]) -> Vector {
        match self {
            Self::Float => Vector::Rows(steps.iter().map(|step| [*step]).collect()),
            Self::Base64 => Vector::Base64(pack(steps)),
        }
    }
}

fn pack(numbers: &[f64]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| narrow(*number).to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// The nearest 32-bit float; the largest where the reward is beyond them all, for infinity is no reward.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose, and what overflows is clamped first")]
pub(crate) fn narrow(reward: f64) -> f32 {
    reward.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_finite_reward_becomes_infinite() {
        for reward in [1e300, -1e300, 0.5] {
            assert!(narrow(reward).is_finite(), "{reward}");
        }
        // "AAAAPw==" is the base64 form of 00 00 00 3F.
        assert!(matches!(Encoding::Base64.vector(0.5), Vector::Base64(text) if text == "AAAAPw=="));
    }
}
