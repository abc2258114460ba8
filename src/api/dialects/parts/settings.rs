//! What an operator decides for all dialects.

use std::collections::BTreeSet;

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
}

impl DialectSettings {
    /// Whether the dialect's requests are refused while too much waits.
    pub(super) fn sheds(&self, dialect: &Dialect) -> bool {
        self.shedding.contains(dialect.name)
    }
}
