//! Names and versions of models, safe to put in a path, a URL and a metric label.

use std::{fmt, str::FromStr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a model: the name of its folder in the model repository. With a label, as in `reward@2`, it means one
/// version of the model only: the one of that number, or the one whose [`ModelVersion`] begins so.
///
/// Invariant: 1 to 128 characters out of `A–Z a–z 0–9 . _ -`, not starting with a dot; the same of a label. A copy shares
/// its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ModelName(Arc<str>);

/// Why a text can't name a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} can't name a model; use 1 to 128 letters, digits, dots, underscores or hyphens, not starting with a dot, and for \
     one version of it the same after an @"
)]
pub struct ModelNameError(String);

impl ModelName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The model, whichever version is meant.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.split_once('@').map_or(&self.0, |(base, _)| base)
    }

    /// The version that is meant, if one is.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, label)| label)
    }

    /// The name of one version of this model.
    ///
    /// # Errors
    /// When it can't be a label, or this names a version already.
    pub fn labelled(&self, label: &str) -> Result<Self, ModelNameError> {
        format!("{self}@{label}").parse()
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_part =
            |part: &str| !part.is_empty() && part.len() <= 128 && !part.starts_with('.') && part.chars().all(allowed);
        let named = text.split_once('@').map_or_else(|| is_part(text), |(base, label)| is_part(base) && is_part(label));
        if named { Ok(Self(text.into())) } else { Err(ModelNameError(text.chars().take(160).collect())) }
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
        name.0.as_ref().to_owned()
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

    #[test]
    fn a_name_may_mean_one_version() {
        for bad in ["@2", "reward@", "reward@2@3", "reward@../2", "reward@.2"] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        let name: ModelName = "reward@2".parse().unwrap();
        assert_eq!((name.base(), name.label()), ("reward", Some("2")));
        let plain: ModelName = "reward".parse().unwrap();
        assert_eq!((plain.base(), plain.label()), ("reward", None));
        assert_eq!(plain.labelled("2").unwrap(), name);
        assert!(name.labelled("3").is_err());
    }
}
