//! The file of keys: one JSON object a line, so that a line can be added by whatever writes files.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use karat_engine::schedule::Priority;
use karat_rules::domain::ModelName;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Bucket, Key};

/// The SHA-256 of a key.
pub(super) type Digest = [u8; 32];

/// What tells a key from other words, for people and for what looks for leaked ones.
const PREFIX: &str = "karat_";

/// Why keys can't be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file can't be read.
    #[error("{}: {source}; --keys names the file of keys, of which \"karat keys new\" writes the lines", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Lines of it aren't keys.
    #[error("{}: {}", file.display(), faults.join("; "))]
    Faulty {
        /// The file.
        file: PathBuf,
        /// What is wrong in which line.
        faults: Vec<String>,
    },
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Whose key it is, for logs.
    pub(crate) name: String,
    /// The SHA-256 of the key, in hexadecimal digits.
    pub(crate) sha256: String,
    /// The models that it may use; all where there is no list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) models: Option<Vec<ModelName>>,
    /// How many tokens it may have scored a minute; as many as it likes where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokens_per_minute: Option<u64>,
    /// The highest priority that its requests get; that of `high`, which is any, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<Priority>,
    /// Whether it may load and unload models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) admin: bool,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Entry {
    /// The line of a key that may use every model.
    pub(crate) fn new(name: String, digest: Digest) -> Self {
        let sha256 = hexadecimal(&digest);
        Self { name, sha256, models: None, tokens_per_minute: None, priority: None, admin: false }
    }

    /// The key that it describes; one of the same name that was there before has what it had left.
    fn into_key(self, before: &[Arc<Key>]) -> Result<Key, String> {
        let Self { name, sha256, models, tokens_per_minute, priority, admin } = self;
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(format!("{name:?} is no name"));
        }
        let digest =
            parse_digest(&sha256).ok_or_else(|| format!("the sha256 of {name} has no 64 hexadecimal digits"))?;
        let per_minute = match tokens_per_minute.map(NonZeroU64::new) {
            None => None,
            Some(Some(tokens)) => Some(tokens.get()),
            Some(None) => return Err(format!("{name} has 0 tokens_per_minute; take the line out to refuse a key")),
        };
        let bucket = per_minute.map(|per_minute| {
            let kept = before.iter().filter(|key| key.name == name).find_map(|key| key.bucket.clone());
            kept.filter(|bucket| bucket.per_minute() == per_minute).unwrap_or_else(|| Arc::new(Bucket::new(per_minute)))
        });
        Ok(Key { name, digest, models, priority: priority.unwrap_or(Priority::High), admin, bucket })
    }
}

/// The keys of a file, where keys that were there `before` go on.
pub(super) fn read(file: &Path, before: &[Arc<Key>]) -> Result<Vec<Arc<Key>>, KeysError> {
    let text = fs::read_to_string(file).map_err(|source| KeysError::Unreadable { file: file.to_owned(), source })?;
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let entry = serde_json::from_str::<Entry>(line).map_err(|error| error.to_string());
        match entry.and_then(|entry| entry.into_key(before)) {
            Ok(key) if !names.insert(key.name.clone()) => {
                faults.push(format!("line {number}: there is a key {} already", key.name));
            }
            Ok(key) if !digests.insert(key.digest) => {
                faults.push(format!("line {number}: {} has the sha256 of another key", key.name));
            }
            Ok(key) => keys.push(Arc::new(key)),
            Err(fault) => faults.push(format!("line {number}: {fault}")),
        }
    }
    if keys.is_empty() && faults.is_empty() {
        faults.push("there is no key in it; \"karat keys new NAME\" writes a line".to_owned());
    }
    if faults.is_empty() { Ok(keys) } else { Err(KeysError::Faulty { file: file.to_owned(), faults }) }
}

/// A new key, and its digest.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn generate() -> Result<(String, Digest), getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let digest = digest(key.as_bytes());
    Ok((key, digest))
}

pub(super) fn digest(key: &[u8]) -> Digest {
    Sha256::digest(key).into()
}

pub(super) fn hexadecimal(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_digest(text: &str) -> Option<Digest> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let bytes = (0..32).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.jsonl");
        let (_, digest) = generate().unwrap();
        let fine = Entry::new("fine".to_owned(), digest).to_string();
        let lines = [
            fine.clone(),
            String::new(),
            fine,
            Entry::new("twin".to_owned(), digest).to_string(),
            r#"{"name": "short", "sha256": "abc"}"#.to_owned(),
            Entry { tokens_per_minute: Some(0), ..Entry::new("none".to_owned(), [0; 32]) }.to_string(),
            r#"{"name": "typing", "sha256": "", "model": []}"#.to_owned(),
            Entry::new(" ".to_owned(), [1; 32]).to_string(),
        ];
        fs::write(&file, lines.join("\n")).unwrap();
        let told = read(&file, &[]).unwrap_err().to_string();
        for part in [
            "line 3: there is a key fine already",
            "line 4: twin has the sha256 of another key",
            "line 5: the sha256 of short",
            "line 6: none has 0 tokens_per_minute",
            "line 7: unknown field `model`",
            "line 8: \" \" is no name",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert!(!told.contains("line 1:") && !told.contains("line 2:"), "{told}");
        fs::write(&file, "\n").unwrap();
        assert!(read(&file, &[]).unwrap_err().to_string().contains("there is no key in it"));
    }

    #[test]
    fn no_two_keys_are_alike() {
        let keys: BTreeSet<String> = (0..100).map(|_| generate().unwrap().0).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| key.len() == PREFIX.len() + 43), "32 bytes each");
    }
}
