//! Which file a path means: two paths may mean one.

use std::{fs, path::Path, time::SystemTime};

/// A file as it is now. One that is written to becomes another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    place: Place,
    length: u64,
    modified: Option<SystemTime>,
}

/// Where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(unix, expect(dead_code, reason = "where files have numbers, nobody needs their paths"))]
enum Place {
    /// The file's number on its device.
    Numbered(u64, u64),
    /// Where links lead.
    Path(std::path::PathBuf),
}

impl FileIdentity {
    /// That of the file at a path, links followed; `None` where there is none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            Place::Numbered(metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let place = Place::Path(path.canonicalize().ok()?);
        Some(Self { place, length: metadata.len(), modified: metadata.modified().ok() })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_mean_one_file_and_copies_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "one").unwrap();
        fs::hard_link(path("a"), path("b")).unwrap();
        fs::write(path("c"), "one").unwrap();
        let of = |name: &str| FileIdentity::of(&path(name));
        #[cfg(unix)]
        assert_eq!(of("a"), of("b"));
        assert_ne!(of("a"), of("c"));
        assert_eq!((of("none"), of("a").map(|file| file.length())), (None, Some(3)));
        let before = of("a");
        fs::write(path("a"), "another").unwrap();
        assert_ne!(of("a"), before);
    }
}
