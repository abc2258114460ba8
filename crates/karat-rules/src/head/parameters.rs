//! What the parameters of several heads are made of.

use std::{ops::Deref, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

/// Names that tell objectives, labels or features apart: at least one, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>")]
pub(super) struct Names(Arc<[String]>);

impl Names {
    /// As the conversion, for names that are no parameter of their own.
    ///
    /// # Errors
    /// What `what` must be.
    pub(super) fn named(what: &str, names: Vec<String>) -> Result<Self, String> {
        Self::try_from(names).map_err(|reason| format!("{what} {reason}"))
    }

    /// The names, for an output of their head.
    pub(super) fn shared(&self) -> Arc<[String]> {
        Arc::clone(&self.0)
    }
}

impl TryFrom<Vec<String>> for Names {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names.is_empty() {
            return Err("must name at least one".to_owned());
        }
        match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            Some((_, twice)) => Err(format!("must not name {twice:?} twice")),
            None => Ok(Self(names.into())),
        }
    }
}

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

/// One of two classes, 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "usize")]
pub(super) struct Class(#[schemars(range(max = 1))] usize);

impl Class {
    /// The class's logit less the other's, of the two.
    pub(super) fn log_odds(self, logits: &[f64]) -> f64 {
        logits[self.0] - logits[1 - self.0]
    }
}

impl TryFrom<usize> for Class {
    type Error = String;

    fn try_from(class: usize) -> Result<Self, String> {
        if class > 1 { Err(format!("must be 0 or 1, the two classes, found {class}")) } else { Ok(Self(class)) }
    }
}
