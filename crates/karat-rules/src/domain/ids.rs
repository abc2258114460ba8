//! Names and versions of models, safe to put in a path, a URL and a metric label.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a model: the name of its folder in the model repository.
///
/// Invariant: 1 to 128 characters out of `A–Z a–z 0–9 . _ -`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ModelName(String);

/// Why a text can't name a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} can't name a model; use 1 to 128 letters, digits, dots, underscores or hyphens, not starting with a dot"
)]
pub struct ModelNameError(String);

impl ModelName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let named = !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.chars().all(allowed);
        if named { Ok(Self(text.to_owned())) } else { Err(ModelNameError(text.chars().take(160).collect())) }
    }
}

impl TryFrom<String> for ModelName {
    type Error = ModelNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which exact model produced a score: a digest over its manifest, graphs, tokenizer and members.
///
/// Two servers that report the same version computed with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct ModelVersion(String);

impl ModelVersion {
    /// Names a version by the first 16 hexadecimal digits of a SHA-256 digest.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_leave_the_repository() {
        for bad in ["", ".", "..", "../etc", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        for good in ["relevance", "Skywork-8B.v2_1", &"x".repeat(128)] {
            assert!(good.parse::<ModelName>().is_ok(), "{good:?}");
        }
    }
}
