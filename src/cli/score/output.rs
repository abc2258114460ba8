//! The scores of a run on disk: one line a row, only ever appended, so that a run which was killed can go on.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::{CommandError, backend::Scored};

/// How much is read at once while looking for the last whole line.
const BLOCK: u64 = 1 << 16;

/// One line of the file.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// The row's place in the input, counted from 0.
    pub(super) row: u64,
    /// The fields of the input that were asked for.
    #[serde(flatten)]
    pub(super) kept: Map<String, Value>,
    /// The scores, or why there are none.
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    /// A digest over the row and the settings, by which a later run knows its own work.
    pub(super) check: String,
}

/// The scores, or why there are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    /// The row's scores.
    Scored(Scored),
    /// A bad row that the caller wanted skipped.
    Skipped {
        /// What is wrong with it.
        error: String,
    },
}

/// What a later run reads of a line.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) row: u64,
    pub(super) check: String,
}

/// What stands for standard output in place of a file's name.
const STANDARD_OUTPUT: &str = "-";

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    sink: Sink,
    /// How many bytes an earlier run wrote.
    earlier: u64,
}

#[derive(Debug)]
enum Sink {
    /// A file, locked against a second run.
    File(File),
    /// Whoever reads this process's output; what was written there can't be continued.
    Standard,
}

/// What an earlier run wrote, line by line.
#[derive(Debug)]
pub(super) struct Earlier {
    path: PathBuf,
    lines: std::io::Lines<BufReader<std::io::Take<File>>>,
    number: u64,
}

impl Output {
    /// Opens or creates the file and cuts off a last line that a killed run left unfinished.
    pub(super) fn open(path: &Path) -> Result<Self, CommandError> {
        if path == Path::new(STANDARD_OUTPUT) {
            return Ok(Self { path: path.to_owned(), sink: Sink::Standard, earlier: 0 });
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if ["parquet", "csv", "tsv", "gz", "zst"].contains(&extension.to_lowercase().as_str()) {
            let lines = path.with_extension("jsonl");
            return Err(format!(
                "scores are written as JSON Lines, and {} is named like something else; write --output {}",
                path.display(),
                lines.display()
            )
            .into());
        }
        let unusable =
            |error: std::io::Error| format!("{} can't be used: {error}; choose another --output", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(unusable)?;
        file.try_lock().map_err(|error| format!("{}: {error}; is another run writing to it?", path.display()))?;
        let whole = end_of_last_line(&mut file).map_err(unusable)?;
        file.set_len(whole).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), sink: Sink::File(file), earlier: whole })
    }

    /// The file's name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether lines go to whoever reads this process's output.
    pub(super) fn is_standard(&self) -> bool {
        matches!(self.sink, Sink::Standard)
    }

    /// What an earlier run wrote, from its beginning; none where there can't be one.
    pub(super) fn earlier(&self) -> Result<Option<Earlier>, CommandError> {
        if self.is_standard() {
            return Ok(None);
        }
        let file = File::open(&self.path).map_err(|error| format!("{} can't be read: {error}", self.path.display()))?;
        let lines = BufReader::new(file.take(self.earlier)).lines();
        Ok(Some(Earlier { path: self.path.clone(), lines, number: 0 }))
    }

    /// Appends lines, all in one write.
    pub(super) fn append(&mut self, lines: &[Line]) -> Result<(), CommandError> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let written = match &mut self.sink {
            Sink::File(file) => file.write_all(&text),
            Sink::Standard => std::io::stdout().lock().write_all(&text),
        };
        written.map_err(|error| format!("{} can't be written: {error}", self.path.display()).into())
    }

    /// Makes sure that everything is on the disk.
    pub(super) fn finish(self) -> Result<(), CommandError> {
        match self.sink {
            Sink::File(file) => Ok(file.sync_all()?),
            Sink::Standard => Ok(std::io::stdout().flush()?),
        }
    }
}

impl Earlier {
    /// The next line of the earlier run, if it got that far.
    pub(super) fn next(&mut self) -> Result<Option<Done>, CommandError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        self.number += 1;
        let read = line.map_err(|error| error.to_string());
        match read.and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string())) {
            Ok(done) => Ok(Some(done)),
            Err(error) => Err(self.mismatch(&error)),
        }
    }

    /// The error of a line that isn't of a run like this one.
    pub(super) fn mismatch(&self, reason: &str) -> CommandError {
        format!(
            "{}, line {}: {reason}; the file isn't what this command wrote before with this input and these settings: \
             choose another --output, or delete it",
            self.path.display(),
            self.number
        )
        .into()
    }
}

/// How many bytes the file has up to and with its last newline.
fn end_of_last_line(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(newline) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_unfinished_line_is_cut_off_and_whole_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        let long = "x".repeat(200_000);
        for (content, kept) in
            [("", 0), ("{\"row\":0", 0), ("{}\n{\"ro", 3), ("{}\n", 3), (&format!("{{}}\n{long}"), 3)]
        {
            fs::write(&path, content).unwrap();
            drop(Output::open(&path).unwrap());
            assert_eq!(fs::metadata(&path).unwrap().len(), kept, "{content:.20}");
        }
    }

    #[test]
    fn a_file_is_not_written_under_the_name_of_another_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.parquet");
        let error = Output::open(&path).unwrap_err().to_string();
        assert!(error.contains("scores.jsonl") && !path.exists(), "{error}");
    }

    #[test]
    fn two_runs_do_not_write_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        let first = Output::open(&path).unwrap();
        assert!(Output::open(&path).unwrap_err().to_string().contains("another run"));
        drop(first);
        assert!(Output::open(&path).is_ok());
    }
}
