//! The rows of a file, one at a time: JSON Lines or Parquet.

mod fields;
mod transcript;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::CommandError;

pub(super) use fields::{FieldArguments, answers, text};

/// One row of a file.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its place, counted from 0: the line of a JSON Lines file, the row of a Parquet file.
    pub(super) number: u64,
    /// The place in words, counted as editors count.
    pub(super) place: String,
    /// Its fields, or why it has none.
    pub(super) fields: Result<Map<String, Value>, String>,
    /// The row as the file holds it.
    text: Vec<u8>,
}

impl Row {
    /// The first 16 hexadecimal digits of a digest over the row and what else decides its scores.
    pub(super) fn check(&self, fingerprint: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(fingerprint.as_bytes());
        digest.update([0]);
        digest.update(&self.text);
        digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Parquet,
}

/// A file of rows.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    path: PathBuf,
    format: Format,
}

impl Rows {
    /// The rows of a file: Parquet where its name ends so, else JSON Lines.
    pub(super) fn of(path: &Path) -> Self {
        let parquet = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        Self { path: path.to_owned(), format: if parquet { Format::Parquet } else { Format::JsonLines } }
    }

    /// The folder that the file lies in.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// How many rows there are; lines of a JSON Lines file, blank ones too.
    pub(super) fn count(&self) -> Result<u64, CommandError> {
        if self.format == Format::Parquet {
            let rows = self.parquet()?.metadata().file_metadata().num_rows();
            return Ok(u64::try_from(rows).unwrap_or(0));
        }
        let mut reader = BufReader::with_capacity(1 << 16, self.file()?);
        let (mut lines, mut last) = (0, b'\n');
        loop {
            let buffer = reader.fill_buf().map_err(|error| self.unreadable(&error))?;
            let Some(end) = buffer.last() else { break };
            last = *end;
            lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
            let read = buffer.len();
            reader.consume(read);
        }
        Ok(lines + u64::from(last != b'\n'))
    }

    /// Calls `each` with every row in turn, until it breaks. Blank lines are passed over.
    pub(super) fn each(&self, mut each: impl FnMut(Row) -> ControlFlow<()>) -> Result<(), CommandError> {
        match self.format {
            Format::JsonLines => self.each_line(&mut each),
            Format::Parquet => self.each_record(&mut each),
        }
    }

    fn each_line(&self, each: &mut dyn FnMut(Row) -> ControlFlow<()>) -> Result<(), CommandError> {
        let mut reader = BufReader::new(self.file()?);
        for number in 0.. {
            let mut text = Vec::new();
            if reader.read_until(b'\n', &mut text).map_err(|error| self.unreadable(&error))? == 0 {
                break;
            }
            // A byte-order mark, as some editors and spreadsheets write it, is no part of the first row.
            let line = text.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 0).unwrap_or(&text).trim_ascii();
            if line.is_empty() {
                continue;
            }
            let fields = serde_json::from_slice(line).map_err(|error| format!("is no JSON object: {error}"));
            let row = Row { number, place: format!("line {}", number + 1), fields, text: line.to_vec() };
            if each(row).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn each_record(&self, each: &mut dyn FnMut(Row) -> ControlFlow<()>) -> Result<(), CommandError> {
        for (number, record) in (0..).zip(self.parquet()?) {
            let value = record.map_err(|error| format!("{}: {error}", self.path.display()))?.to_json_value();
            let text = value.to_string().into_bytes();
            let fields = match value {
                Value::Object(fields) => Ok(fields),
                _ => Err("has no columns".to_owned()),
            };
            if each(Row { number, place: format!("row {}", number + 1), fields, text }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn parquet(&self) -> Result<SerializedFileReader<File>, CommandError> {
        SerializedFileReader::new(self.file()?).map_err(|error| {
            format!("{} can't be read as Parquet: {error}; JSON Lines need another name", self.path.display()).into()
        })
    }

    fn file(&self) -> Result<File, CommandError> {
        File::open(&self.path).map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &io::Error) -> CommandError {
        format!("{} can't be read: {error}; name a file of JSON Lines or Parquet", self.path.display()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rows(content: &str) -> (u64, Vec<(u64, String, bool)>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, content).unwrap();
        let (file, mut found) = (Rows::of(&path), Vec::new());
        file.each(|row| {
            found.push((row.number, row.place, row.fields.is_ok()));
            ControlFlow::Continue(())
        })
        .unwrap();
        (file.count().unwrap(), found)
    }

    #[test]
    fn blank_lines_are_passed_over_and_keep_the_count() {
        let (count, found) = rows("{}\r\n\n  \n[1]\n{\"a\": 1}");
        assert_eq!(count, 5);
        let places: Vec<(u64, &str, bool)> = found.iter().map(|(n, place, ok)| (*n, place.as_str(), *ok)).collect();
        assert_eq!(places, [(0, "line 1", true), (3, "line 4", false), (4, "line 5", true)]);
        assert_eq!(rows("\u{feff}{}\n{}").1.iter().filter(|(_, _, read)| *read).count(), 2);
        assert_eq!(rows("").0, 0);
        assert_eq!(rows("{}\n").0, 1);
    }

    #[test]
    fn another_row_or_other_settings_change_the_check() {
        let row = |text: &str| Row { number: 0, place: String::new(), fields: Ok(Map::new()), text: text.into() };
        assert_eq!(row("a").check("x"), row("a").check("x"));
        assert_ne!(row("a").check("x"), row("b").check("x"));
        assert_ne!(row("a").check("x"), row("a").check("y"));
    }
}
