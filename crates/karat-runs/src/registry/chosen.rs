//! What a run asks of its samples beside their score.

use crate::run::{Config, RunName, is_in_share};

/// What a sample is chosen for beside its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// What the run asks for.
    pub config: Config,
}

impl Chosen {
    /// Whether a second judge is to score the sample.
    #[must_use]
    pub fn is_judged(&self, hash: u64) -> bool {
        self.config.judge.as_ref().is_some_and(|judge| is_in_share(hash, judge.share))
    }

    /// Whether edits of the sample are to be tried.
    #[must_use]
    pub fn is_probed(&self, hash: u64) -> bool {
        self.config.probe.as_ref().is_some_and(|probe| is_in_share(hash, probe.share))
    }
}

/// Why a run can't be configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A share is none.
    #[error("{0}")]
    Invalid(String),
    /// The run that is to be compared with isn't there, or gave no rewards.
    #[error("reference: the run {0} has no rewards to compare with; GET /v1/runs lists those that have")]
    NoReference(RunName),
}
