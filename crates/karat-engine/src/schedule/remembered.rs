//! What was measured or tried of a model, kept in a file from one start to the next.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A file's content: what was found, and everything that it depends on in words.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered<T> {
    fingerprint: String,
    // As files of earlier versions call it.
    #[serde(alias = "calibration", alias = "cost")]
    found: T,
}

/// What an earlier start found, if it was kept under the same fingerprint. What `check` says can't be right, with what a
/// file says that nobody here wrote, is told in the log and passed over.
pub(crate) fn recall<T: DeserializeOwned>(
    path: &Path,
    fingerprint: &str,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    let read = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
    let checked = read.and_then(|Remembered { fingerprint: kept, found }: Remembered<T>| {
        // Of another model or machine: nobody edited it.
        if kept != fingerprint {
            return Ok(None);
        }
        check(&found).map(|()| Some(found))
    });
    checked.unwrap_or_else(|reason| {
        tracing::warn!(file = %path.display(), reason, "what this file says can't be used: found out anew");
        None
    })
}

/// Keeps what was found for the next start.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn remember<T: Serialize>(path: &Path, fingerprint: &str, found: &T) -> io::Result<()> {
    // Renamed into place, so that a server that starts meanwhile reads either nothing or all of it.
    let partial = path.with_extension("partial");
    fs::write(&partial, serde_json::to_vec_pretty(&Remembered { fingerprint: fingerprint.to_owned(), found })?)?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_back_only_for_the_same_machine_and_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let recalled = |fingerprint: &str| recall(&path, fingerprint, |_: &i32| Ok(()));
        assert_eq!(recalled("here"), None);
        remember(&path, "here", &7).unwrap();
        assert_eq!((recalled("here"), recalled("elsewhere")), (Some(7), None));
        assert_eq!(recall(&path, "here", |_: &i32| Err("it can't be".to_owned())), None);
        for damaged in ["{", "{\"fingerprint\": \"here\", \"found\": \"seven\"}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(recalled("here"), None, "{damaged}");
        }
    }
}
