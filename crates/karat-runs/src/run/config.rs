//! What is asked of a run beside its statistics.

use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RunName;

/// What is asked of a run beside its statistics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A second judge; null for none.
    #[serde(default)]
    pub judge: Option<Judge>,
    /// Edits that shouldn't matter, tried on a share of the samples; null for none.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// Another run, whose rewards of each model stand in for this run's beginning as they are now; null for the run's own.
    #[serde(default)]
    pub reference: Option<RunName>,
}

/// A model that also scores a share of the samples, at the lowest priority, and that the policy doesn't see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The model.
    pub model: ModelName,
    /// The share of samples, above 0 and up to 1.
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
}

/// Edits that shouldn't matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The share of samples, above 0 and up to 1.
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
}

fn tenth() -> f64 {
    0.1
}

impl Config {
    /// Whether more is asked of samples than their score.
    #[must_use]
    pub fn asks_for_samples(&self) -> bool {
        self.judge.is_some() || self.probe.is_some()
    }

    /// Whether shares are shares.
    ///
    /// # Errors
    /// When one isn't, with what to write.
    pub fn check(&self) -> Result<(), String> {
        let shares =
            [("judge", self.judge.as_ref().map(|judge| judge.share)), ("probe", self.probe.as_ref().map(|p| p.share))];
        for (name, share) in shares {
            if share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
                return Err(format!("{name}.share must be above 0 and at most 1"));
            }
        }
        Ok(())
    }
}

/// Whether a sample is among a share of all samples, by its hash: the same sample always is or never is.
#[must_use]
pub fn is_in_share(hash: u64, share: f64) -> bool {
    // The upper 53 bits make an even number from 0 to 1.
    ((hash >> 11) as f64) < share * (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn a_share_is_that_share_of_all_samples() {
        let chosen = (0..10_000_u64).filter(|number| is_in_share(xxh3_64(&number.to_le_bytes()), 0.1)).count();
        assert!((900..1100).contains(&chosen), "{chosen}");
        assert!(is_in_share(u64::MAX, 1.0) && !is_in_share(u64::MAX, 0.999));
    }

    #[test]
    fn shares_beyond_all_are_refused() {
        for bad in ["0", "-1", "1.5"] {
            let config: Config =
                serde_json::from_str(&format!(r#"{{"judge":{{"model":"m","share":{bad}}}}}"#)).unwrap();
            assert!(config.check().is_err(), "{bad}");
        }
        let config: Config = serde_json::from_str(r#"{"judge":{"model":"m"}}"#).unwrap();
        assert_eq!((config.check(), config.judge.unwrap().share), (Ok(()), 0.1));
    }
}
