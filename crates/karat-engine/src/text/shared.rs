//! One tokenizer for all models that have the same file: those on one trunk, and the members of an ensemble. Each would hold
//! the whole vocabulary for itself, as strings and by its ids.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use sha2::{Digest as _, Sha256};
use tokenizers::Tokenizer;

use super::TextError;

/// The tokenizers of the models that are there, by the digest of their files, byte for byte. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedTokenizers {
    by_file: Arc<Mutex<HashMap<[u8; 32], Known>>>,
}

/// A tokenizer that a model has.
#[derive(Debug)]
struct Known {
    tokenizer: Weak<Tokenizer>,
    padding: Option<u32>,
}

/// A tokenizer as models use it: it neither pads nor cuts. Both would change a score behind the caller's back: padding is
/// the scheduler's, truncation the caller's.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tokenizer: Arc<Tokenizer>,
    /// The token that its file says to pad with.
    pub(super) padding: Option<u32>,
}

impl SharedTokenizers {
    /// The tokenizer in that file; the one of another model where that has the same file.
    ///
    /// # Errors
    /// When the file can't be read or holds no tokenizer.
    pub(super) fn read(&self, path: &Path) -> Result<Shared, TextError> {
        let unusable = |reason: String| TextError::File { path: path.to_owned(), reason };
        let file = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let digest: [u8; 32] = Sha256::digest(&file).into();
        if let Some(shared) = self.find(&digest) {
            return Ok(shared);
        }
        let mut tokenizer = Tokenizer::from_bytes(&file).map_err(|error| unusable(error.to_string()))?;
        let padding = tokenizer.get_padding().and_then(|section| tokenizer.token_to_id(&section.pad_token));
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        Ok(self.share(digest, Shared { tokenizer: Arc::new(tokenizer), padding }))
    }

    fn find(&self, digest: &[u8; 32]) -> Option<Shared> {
        let by_file = self.by_file.lock().unwrap_or_else(PoisonError::into_inner);
        by_file.get(digest)?.shared()
    }

    /// Notes one that was read, unless another model has read the same file meanwhile: then that one's is taken.
    fn share(&self, digest: [u8; 32], read: Shared) -> Shared {
        let mut by_file = self.by_file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = by_file.get(&digest).and_then(Known::shared) {
            return shared;
        }
        by_file.retain(|_, known| known.tokenizer.strong_count() > 0);
        by_file.insert(digest, Known { tokenizer: Arc::downgrade(&read.tokenizer), padding: read.padding });
        read
    }
}

impl Known {
    fn shared(&self) -> Option<Shared> {
        Some(Shared { tokenizer: self.tokenizer.upgrade()?, padding: self.padding })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A tokenizer of words that pads and cuts, in a file of that name.
    fn write(folder: &Path, name: &str, pads_with: &str) -> std::path::PathBuf {
        let vocabulary = json!({"<unk>": 0, "<a>": 1, "<b>": 2, "one": 3, "two": 4});
        let padding = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 1,
                             "pad_type_id": 0, "pad_token": pads_with});
        let truncation = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        let tokenizer = json!({"version": "1.0", "padding": padding, "truncation": truncation,
                               "pre_tokenizer": {"type": "Whitespace"},
                               "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}});
        let path = folder.join(name);
        fs::write(&path, tokenizer.to_string()).unwrap();
        path
    }

    #[test]
    fn models_with_the_same_file_have_one_tokenizer_which_neither_pads_nor_cuts() {
        let folder = tempfile::tempdir().unwrap();
        let [one, same] = ["one.json", "same.json"].map(|name| write(folder.path(), name, "<a>"));
        let other = write(folder.path(), "other.json", "<b>");
        let shared = SharedTokenizers::default();
        let [one, same, other] = [one, same, other].map(|path| shared.read(&path).unwrap());
        assert!(Arc::ptr_eq(&one.tokenizer, &same.tokenizer));
        assert!(!Arc::ptr_eq(&one.tokenizer, &other.tokenizer));
        assert_eq!([one.padding, same.padding, other.padding], [Some(1), Some(1), Some(2)]);
        for read in [&one, &same, &other] {
            assert_eq!(read.tokenizer.encode("one two", false).unwrap().get_ids(), [3, 4]);
        }
    }

    #[test]
    fn a_tokenizer_goes_with_its_last_model_and_a_file_that_changed_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "tokenizer.json", "<a>");
        let shared = SharedTokenizers::default();
        let before = shared.read(&path).unwrap();
        let gone = Arc::downgrade(&before.tokenizer);
        write(folder.path(), "tokenizer.json", "<b>");
        let after = shared.read(&path).unwrap();
        assert!(!Arc::ptr_eq(&before.tokenizer, &after.tokenizer));
        drop(before);
        assert!(gone.upgrade().is_none());
        fs::write(&path, "{}").unwrap();
        assert!(shared.read(&path).unwrap_err().to_string().contains("tokenizer.json"));
    }
}
