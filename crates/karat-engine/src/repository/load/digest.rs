//! Versions: a digest over every byte that can change a score.

use std::{fs::File, io::Read, path::Path};

use karat_rules::domain::ModelVersion;
use sha2::{Digest as _, Sha256};

use crate::repository::LoadError;

/// A digest that grows by files and texts, each fenced by its length.
#[derive(Clone, Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    /// Adds a file below `folder` under its relative name, or one elsewhere under its last name, so that it doesn't matter
    /// where it lies; a missing one counts as missing.
    pub(super) fn file(&mut self, folder: &Path, name: &Path) -> Result<(), LoadError> {
        let path = folder.join(name);
        let told = if name.is_absolute() { name.file_name().map_or(name, Path::new) } else { name };
        self.text(&told.to_string_lossy());
        if !path.exists() {
            self.text("missing");
            return Ok(());
        }
        let unreadable = |source| LoadError::File { path: path.clone(), source };
        let mut file = File::open(&path).map_err(unreadable)?;
        self.0.update(file.metadata().map_err(unreadable)?.len().to_le_bytes());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => return Ok(()),
                count => self.0.update(&buffer[..count]),
            }
        }
    }

    /// Adds a text.
    pub(super) fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// Adds another digest.
    pub(super) fn digest(&mut self, digest: &[u8; 32]) {
        self.0.update(digest);
    }

    pub(super) fn version(self) -> ModelVersion {
        ModelVersion::from_digest(&self.0.finalize().into())
    }
}
