//! Whether the files of a model are still those that were loaded.

use std::{fs, io, path::Path, time::SystemTime};

/// The deepest that a model's files lie below its folder.
const DEPTH: usize = 4;

/// What the system says of a model's files, without reading them.
///
/// Who writes a file changes its time or its length. What karat writes itself, such as calibrations, doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    /// Each file's path, length and time, sorted by path.
    files: Vec<(String, u64, Option<SystemTime>)>,
}

impl Stamp {
    /// The files below a folder; none where it can't be read.
    pub(super) fn of(folder: &Path) -> Self {
        let mut files = Vec::new();
        // What can't be read counts as gone: loading it tells why.
        let _ = collect(folder, folder, DEPTH, &mut files);
        files.sort();
        Self { files }
    }

    /// How many bytes the files have together.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, length, _)| length).sum()
    }
}

fn collect(
    root: &Path,
    folder: &Path,
    depth: usize,
    files: &mut Vec<(String, u64, Option<SystemTime>)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Links are followed: the Hub's cache is made of them.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            if depth > 0 {
                collect(root, &path, depth - 1, files)?;
            }
        } else if !is_own(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, metadata.len(), metadata.modified().ok()));
        }
    }
    Ok(())
}

/// Whether karat writes the file itself, or it is on its way to another name.
fn is_own(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.ends_with("calibration.json") || name.ends_with(".partial")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_changes_it_and_what_karat_writes_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(Stamp::of(folder.path()), Stamp::default());
        write("model.toml", "a");
        let first = Stamp::of(folder.path());
        write("model.onnx.calibration.json", "{}");
        write(".model.toml.swp", "{}");
        assert_eq!(Stamp::of(folder.path()), first);
        write("model.toml", "ab");
        assert_ne!(Stamp::of(folder.path()), first);
        assert_eq!((first.bytes(), Stamp::of(folder.path()).bytes()), (1, 2));
        assert_eq!(Stamp::of(&folder.path().join("gone")), Stamp::default());
    }
}
