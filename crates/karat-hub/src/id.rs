//! The id of a model on the Hub.

use std::{fmt, str::FromStr};

/// The branch of a model that names none.
pub(crate) const DEFAULT_REVISION: &str = "main";

/// `org/name`, or `name` of a few old models; with `@revision` a branch, a tag or a commit of it.
///
/// Invariant: no part of it leads out of a folder that it is joined to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId {
    repository: String,
    revision: Option<String>,
}

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no model of the Hugging Face Hub; write org/name, and behind it, where you want one, @revision")]
pub struct ModelIdError(String);

impl ModelId {
    /// The id of a model and a revision that were written apart.
    ///
    /// # Errors
    /// When either can't be one.
    pub fn new(repository: &str, revision: Option<&str>) -> Result<Self, ModelIdError> {
        match revision {
            None => repository.parse(),
            Some(revision) => format!("{repository}@{revision}").parse(),
        }
    }

    /// `org/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The last part: the model's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The branch, tag or commit.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The same model at a commit.
    #[must_use]
    pub fn at(&self, commit: &str) -> Self {
        Self { repository: self.repository.clone(), revision: Some(commit.to_owned()) }
    }

    /// The revision, if it is a commit, which never stands for other files.
    pub(crate) fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|revision| is_commit(revision))
    }

    /// The model's folder within a cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.repository.replace('/', "--"))
    }
}

/// Whether a text is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl FromStr for ModelId {
    type Err = ModelIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let parts = repository.split('/').count() <= 2 && repository.split('/').all(is_part);
        // Branches such as `refs/pr/3` have several parts.
        let named = revision.is_none_or(|revision| revision.split('/').all(is_part));
        if parts && named {
            Ok(Self { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
        } else {
            Err(ModelIdError(text.chars().take(200).collect()))
        }
    }
}

fn is_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && part.chars().all(allowed)
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_name_and_perhaps_a_revision() {
        let id: ModelId = "org/a-model_1.5@refs/pr/3".parse().unwrap();
        assert_eq!((id.repository(), id.name(), id.revision()), ("org/a-model_1.5", "a-model_1.5", "refs/pr/3"));
        assert_eq!((id.folder().as_str(), id.commit()), ("models--org--a-model_1.5", None));
        let id: ModelId = "gpt2".parse().unwrap();
        assert_eq!((id.name(), id.revision(), id.to_string().as_str()), ("gpt2", "main", "gpt2"));
        let pinned = id.at(&"0a".repeat(20));
        assert_eq!(pinned.commit(), Some("0a".repeat(20).as_str()));
    }

    #[test]
    fn nothing_that_leads_out_of_a_folder_is_an_id() {
        for text in ["", "/a", "a/", "a/b/c", "../b", "a/..", "a/b@", "a/b@../../c", "a/b@.", "a b", "a\\b", "a/b@c@d"]
        {
            assert!(text.parse::<ModelId>().is_err(), "{text}");
        }
    }
}
