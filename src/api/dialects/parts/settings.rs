//! What an operator decides for all dialects.

use std::{collections::BTreeSet, time::Duration};

use karat_engine::schedule::Admission;
use karat_rules::domain::ModelName;

use crate::api::dialects::dialect::Dialect;

/// What an operator decides for all dialects.
#[derive(Debug, Clone, Default)]
pub struct DialectSettings {
    /// The model of requests that name none, or one that isn't there where a dialect's clients name whatever they like.
    pub default_model: Option<ModelName>,
    /// The dialects whose requests are refused while too much waits. All others wait: most trainers lose what is
    /// refused.
    pub shedding: BTreeSet<String>,
    /// The longest that the others may be expected to wait, if that is bounded: what comes after a trainer's own timeout
    /// comes for nobody.
    pub patience: Option<Duration>,
}

impl DialectSettings {
    /// When the dialect's requests are refused.
    pub(super) fn admission(&self, dialect: &Dialect) -> Admission {
        match (self.shedding.contains(dialect.name), self.patience) {
            (true, _) => Admission::Bounded,
            (false, Some(patience)) => Admission::Within(patience),
            (false, None) => Admission::Always,
        }
    }
}
