//! What a run is called.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A run's name, safe in a path, a URL, a metric's label and a file.
///
/// Invariant: 1 to 128 characters out of `A–Z a–z 0–9 . _ : -`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct RunName(String);

/// Why a text can't name a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} can't name a run; use 1 to 128 letters, digits, dots, underscores, colons or hyphens, not starting with a dot"
)]
pub struct RunNameError(String);

impl RunName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunName {
    type Err = RunNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for RunName {
    type Error = RunNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':');
        let named = !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(allowed);
        if named { Ok(Self(text)) } else { Err(RunNameError(text.chars().take(160).collect())) }
    }
}

impl From<RunName> for String {
    fn from(name: RunName) -> Self {
        name.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", ".", "../x", "a/b", "a b", "a\"b", "a\nb", "é", "a,b", "=1", &"x".repeat(129)] {
            assert!(bad.parse::<RunName>().is_err(), "{bad:?}");
        }
        for good in ["grpo-7b_v2.1", "wandb:1x2y3z", &"x".repeat(128)] {
            assert!(good.parse::<RunName>().is_ok(), "{good:?}");
        }
    }
}
