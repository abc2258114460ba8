//! Versions: a digest over every byte that can change a score. And a second one over those that can change what a pass
//! gives: what was measured and tried of a graph holds for every model with the same passes, whatever becomes of scores
//! afterwards.

use std::{fs::File, io::Read, path::Path};

use karat_rules::domain::ModelVersion;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::{manifest::Manifest, repository::LoadError};

/// Both digests, which grow by files and texts, each fenced by its length.
#[derive(Clone, Default)]
pub(super) struct Digest {
    version: Sha256,
    /// Nobody trusts it as they trust a version: it tells files of one folder apart, and costs a tenth of the other.
    passes: Xxh3,
}

impl Digest {
    /// Adds a manifest: its own words to the version, and what of them passes depend on to the other.
    pub(super) fn manifest(&mut self, words: &str, manifest: &Manifest) {
        fence(words.len(), |bytes| self.version.update(bytes));
        self.version.update(words);
        let passes = format!("{:?}", manifest.of_passes());
        fence(passes.len(), |bytes| self.passes.update(bytes));
        self.passes.update(passes.as_bytes());
    }

    /// Adds a file below `folder` under its relative name, or one elsewhere under its last name, so that it doesn't matter
    /// where it lies; a missing one counts as missing.
    pub(super) fn file(&mut self, folder: &Path, name: &Path) -> Result<(), LoadError> {
        let path = folder.join(name);
        self.name(name);
        if !path.exists() {
            self.text("missing");
            return Ok(());
        }
        let unreadable = |source| LoadError::File { path: path.clone(), source };
        let mut file = File::open(&path).map_err(unreadable)?;
        self.bytes(&file.metadata().map_err(unreadable)?.len().to_le_bytes());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => return Ok(()),
                count => self.bytes(&buffer[..count]),
            }
        }
    }

    /// The same of a file that was read already.
    pub(super) fn read_file(&mut self, name: &Path, content: &[u8]) {
        self.name(name);
        fence(content.len(), |bytes| self.bytes(bytes));
        self.bytes(content);
    }

    fn name(&mut self, file: &Path) {
        let told = if file.is_absolute() { file.file_name().map_or(file, Path::new) } else { file };
        self.text(&told.to_string_lossy());
    }

    /// Adds a text.
    pub(super) fn text(&mut self, text: &str) {
        fence(text.len(), |bytes| self.bytes(bytes));
        self.bytes(text.as_bytes());
    }

    /// Adds another digest.
    pub(super) fn digest(&mut self, digest: &[u8; 32]) {
        self.bytes(digest);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.version.update(bytes);
        self.passes.update(bytes);
    }

    /// The model's version.
    pub(super) fn version(self) -> ModelVersion {
        ModelVersion::from_digest(&self.version.finalize().into())
    }

    /// What tells passes apart: equal for models of equal graphs, weights, tokenizers and settings, whose rules may differ.
    pub(super) fn passes(&self) -> String {
        format!("{:032x}", self.passes.digest128())
    }
}

/// Gives a length, so that what follows can't be taken for the end of what was before.
fn fence(length: usize, update: impl FnOnce(&[u8])) {
    update(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(manifest: &str, weights: &str) -> Digest {
        let mut digest = Digest::default();
        digest.manifest(manifest, &toml::from_str(manifest).unwrap());
        digest.text(weights);
        digest
    }

    #[test]
    fn rules_change_the_version_and_no_passes() {
        let manifest = |top: &str, most: u32| {
            format!("{top}\n[graph]\nfile = \"model.onnx\"\n[text]\nrender = \"raw\"\nmax_tokens = {most}\n")
        };
        let first = digest(&manifest("", 64), "weights");
        let rules =
            "description = \"shifted\"\naggregate = \"min\"\ntransforms = [{ affine = { scale = 2, offset = 1 } }]";
        let ruled = digest(&manifest(rules, 64), "weights");
        assert_eq!(ruled.passes(), first.passes());
        assert_ne!(ruled.version(), first.clone().version());
        for (top, most, weights) in [
            ("", 32, "weights"),
            ("", 64, "others"),
            ("head = \"sigmoid\"", 64, "weights"),
            ("scheduling = { sessions = 1 }", 64, "weights"),
        ] {
            assert_ne!(digest(&manifest(top, most), weights).passes(), first.passes(), "{top} {most} {weights}");
        }
    }

    #[test]
    fn a_file_that_was_read_before_counts_as_one_that_is_read_now() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), [1, 2, 3]).unwrap();
        let (mut now, mut before) = (Digest::default(), Digest::default());
        now.file(folder.path(), Path::new("model.onnx")).unwrap();
        before.read_file(Path::new("model.onnx"), &[1, 2, 3]);
        assert_eq!((now.passes(), now.version()), (before.passes(), before.version()));
    }
}
