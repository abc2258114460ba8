//! `[digests]`: the files that a manifest was written for, byte for byte.
//!
//! A flipped bit in a weight gives scores that look as good as any. Who pins a model's files is told at load which of them
//! are others by now.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs::{self, File},
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{EXPECTED_FILE, FILE_NAME, ManifestError};

/// What a digest begins with.
const ALGORITHM: &str = "sha256:";
/// How the names of files end that can decide a score.
const ENDINGS: [&str; 9] = ["onnx", "onnx_data", "data", "safetensors", "bin", "pt", "model", "json", "jinja"];

/// Files by their paths from the model's folder, each with its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Digests(#[schemars(with = "BTreeMap<String, String>")] BTreeMap<String, FileDigest>);

/// The SHA-256 of a file's bytes, written as `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct FileDigest([u8; 32]);

impl FileDigest {
    fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Self(digest.finalize().into())),
                count => digest.update(&buffer[..count]),
            }
        }
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for FileDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(ALGORITHM).filter(|digits| digits.len() == 64 && digits.is_ascii());
        let byte = |at: usize| u8::from_str_radix(digits?.get(2 * at..2 * at + 2)?, 16).ok();
        let mut bytes = [0; 32];
        for (at, place) in bytes.iter_mut().enumerate() {
            *place = byte(at).ok_or_else(|| {
                format!("{text:?} is no digest; write {ALGORITHM} and the 64 digits that sha256sum prints")
            })?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for FileDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Digests {
    /// Reads every pinned file of the model in `folder`.
    ///
    /// # Errors
    /// All files that are others, with what was found and what is pinned.
    pub(crate) fn check(&self, folder: &Path) -> Result<(), ManifestError> {
        let found = self.0.iter().filter_map(|(name, pinned)| match FileDigest::of(&folder.join(name)) {
            Ok(digest) if digest == *pinned => None,
            Ok(digest) => Some(format!("{name} is {digest}, and {pinned} is pinned")),
            Err(error) => Some(format!("{name} is pinned as {pinned} and can't be read: {error}")),
        });
        let found: Vec<String> = found.collect();
        if found.is_empty() {
            return Ok(());
        }
        Err(ManifestError::Key {
            path: folder.join(FILE_NAME),
            key: "digests".to_owned(),
            found: found.join("; "),
            wanted:
                "put back what was pinned, or, where the change is meant, remove [digests] and pin anew with `karat \
                     inspect FOLDER --write`"
                    .to_owned(),
        })
    }
}

/// The table that pins what lies in `folder` and can decide a score: graphs, weights, configuration, tokenizer, template.
/// Not the manifest itself, which it stands in, nor what is measured or expected of the model.
///
/// # Errors
/// When a file can't be read.
pub fn digests(folder: &Path) -> io::Result<String> {
    let mut table = String::from("[digests]\n");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let decides = Path::new(&name).extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        let is_kept = name.ends_with(".calibration.json") || name == EXPECTED_FILE;
        if decides && !is_kept && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let digest = FileDigest::of(&folder.join(&name))?;
        // TOML's basic strings are JSON's; writing to a String can't fail.
        let _ = writeln!(table, "{} = \"{digest}\"", serde_json::Value::String(name));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of FIPS 180-4's example `abc`.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[derive(Deserialize)]
    struct Table {
        digests: Digests,
    }

    #[test]
    fn what_is_pinned_is_held_to_its_bytes_and_all_that_differ_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        for name in ["model.onnx", "tokenizer.json", "expected.json", "model.calibration.json", "README.md"] {
            write(name, "abc");
        }
        let table = digests(folder.path()).unwrap();
        assert_eq!(table, format!("[digests]\n\"model.onnx\" = \"{ABC}\"\n\"tokenizer.json\" = \"{ABC}\"\n"));
        let Table { digests: pinned } = toml::from_str(&table).unwrap();
        pinned.check(folder.path()).unwrap();
        write("model.onnx", "abd");
        fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        let error = pinned.check(folder.path()).unwrap_err().to_string();
        for needle in
            ["model.toml", "digests", "model.onnx is sha256:a52d159f", "tokenizer.json is pinned", ABC, "--write"]
        {
            assert!(error.contains(needle), "{needle} is not in {error}");
        }
    }

    #[test]
    fn what_is_no_digest_says_what_to_write() {
        let short = &ABC[..70];
        for bad in ["", "abc", short, &ABC.replace("sha256", "md5"), &ABC.replace('b', "g"), &format!("{ABC}0")] {
            let error = toml::from_str::<Table>(&format!("[digests]\na = \"{bad}\"")).err().unwrap().to_string();
            assert!(error.contains("sha256sum"), "{error}");
        }
    }
}
