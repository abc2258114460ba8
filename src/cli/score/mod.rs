//! `karat score`: a file of samples in, a file of scores out.
//!
//! ```text
//! reader thread ─ rows in batches ─▶ bounded queue ─▶ requests in flight, or a job ─▶ lines in the rows' order
//! ```
//!
//! Lines are written in the order of the rows, so what a killed run left behind is the beginning of the whole. The
//! next run reads it along with the input, checks each line's digest, and scores what is missing.

mod job;
mod output;
mod progress;
mod reader;
mod requests;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::{
    CommandError,
    backend::{BackendArguments, Scored},
    rows::{FieldArguments, Rows},
    style::{say_json, tell},
};
use crate::telemetry::{self, LogFormat};
use output::{Line, Outcome, Output};
use reader::{Passed, Source, WaitingRow};

/// How many bad rows are told one by one.
const TOLD_BAD_ROWS: u64 = 20;

/// Flags of `karat score`.
#[derive(Debug, Clone, Args)]
pub(super) struct ScoreArguments {
    /// The samples: JSON Lines, or Parquet where the name ends in .parquet.
    #[arg(value_name = "FILE")]
    input: PathBuf,

    /// Where the scores go, as JSON Lines; "-" is standard output. If the file is there, it must be of an earlier run,
    /// which is continued.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    backend: BackendArguments,

    #[command(flatten)]
    fields: FieldArguments,

    /// Fields of the input to repeat beside the scores, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "FIELD")]
    keep: Vec<String>,

    /// Write down what is wrong with a bad row and go on, instead of stopping at it.
    #[arg(long)]
    skip_bad_rows: bool,

    /// How many rows make one request.
    #[arg(long, default_value_t = 64, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch: u64,

    /// How many requests are on their way at once.
    #[arg(long, default_value_t = 8, value_name = "REQUESTS", value_parser = clap::value_parser!(u64).range(1..=256))]
    in_flight: u64,

    /// Hand all rows to the server at once, as a job that it works on when there is nothing else to do. A run that is
    /// stopped leaves the job at work, and the next one takes up its results.
    #[arg(long, requires = "server", conflicts_with = "in_flight")]
    job: bool,

    /// Print at the end what became of the rows, as JSON.
    #[arg(long)]
    json: bool,
}

/// What became of the rows.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Those that an earlier run had done.
    earlier: u64,
    /// Those that have a line now, the bad ones included.
    written: u64,
    /// Those that can't be scored: their lines say why.
    bad: u64,
    /// How long it took.
    seconds: f64,
}

pub(super) fn score(arguments: &ScoreArguments) -> Result<(), CommandError> {
    telemetry::start_logging("warn,karat_hub=info,ort=error", LogFormat::Text)?;
    let began = Instant::now();
    let settings = arguments.backend.fingerprint()?;
    let rows = Rows::of(&arguments.input);
    let total = rows.count()?;
    let output = Output::open(&arguments.output)?;
    if output.is_standard() && (arguments.json || arguments.job) {
        return Err("--json and --job need a file for the scores: name one with --output".into());
    }
    let bar = progress::waiting(total);
    bar.set_message("getting ready");
    let source = Source {
        rows,
        fingerprint: format!("{settings} {:?} {:?}", arguments.fields, arguments.keep),
        fields: arguments.fields.clone(),
        keep: arguments.keep.clone(),
        batch: usize::try_from(arguments.batch)?,
        counted_from: 0,
    };
    let lines = Lines { output, bar: &bar, skip_bad_rows: arguments.skip_bad_rows, summary: Summary::default() };
    let done = if arguments.job {
        let jobs = arguments.backend.jobs()?;
        runtime()?.block_on(job::run(source, lines, &jobs))
    } else {
        let backend = arguments.backend.open()?;
        bar.set_message("waiting for the first scores");
        let done = runtime()?.block_on(requests::run(source, lines, &backend, usize::try_from(arguments.in_flight)?));
        backend.close();
        done
    };
    let summary = Summary { seconds: began.elapsed().as_secs_f64(), ..done? };
    bar.finish();
    tell_summary(&summary, &arguments.output, bar.is_hidden());
    if arguments.json { say_json(&summary) } else { Ok(()) }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Nobody watches a run without a bar: its scores are all that it has to say.
fn tell_summary(summary: &Summary, output: &Path, is_unwatched: bool) {
    let Summary { earlier, written, bad, seconds } = summary;
    if *bad > 0 {
        tell(&format!("{bad} bad rows were skipped; each has an \"error\" in {}", output.display()));
    }
    if !is_unwatched {
        let earlier = if *earlier > 0 { format!(" after {earlier} of an earlier run") } else { String::new() };
        let rate = progress::rate(*written as f64 / seconds);
        tell(&format!("{written} rows{earlier} in {seconds:.1} s, {rate}: {}", output.display()));
    }
}

/// Where scores go, and how far they are.
struct Lines<'a> {
    output: Output,
    bar: &'a ProgressBar,
    skip_bad_rows: bool,
    summary: Summary,
}

impl Lines<'_> {
    /// Takes note of what an earlier run has done.
    fn pass(&mut self, passed: Passed) {
        self.summary.earlier = passed.rows;
        self.bar.set_position(passed.rows);
        self.bar.reset_eta();
    }

    /// Writes rows with their scores up to the first bad one, or all of them where bad rows are skipped.
    ///
    /// # Errors
    /// At a bad row that isn't skipped, or where the output can't be written.
    fn write(&mut self, rows: Vec<(WaitingRow, Result<Scored, String>)>) -> Result<(), Stopped> {
        let last = rows.last().map(|(row, _)| row.number);
        let mut sound = Vec::with_capacity(rows.len());
        for (row, outcome) in rows {
            let outcome = outcome.map_or_else(|error| Outcome::Skipped { error }, Outcome::Scored);
            if let Outcome::Skipped { error } = &outcome {
                let told = format!("{}: {error}", row.place);
                if !self.skip_bad_rows {
                    self.append(&sound)?;
                    return Err(Stopped::AtBadRow(told));
                }
                self.summary.bad += 1;
                if self.summary.bad <= TOLD_BAD_ROWS {
                    tell(&told);
                }
            }
            sound.push(Line { row: row.number, kept: row.kept, outcome, check: row.check });
        }
        self.append(&sound)?;
        if let Some(row) = last {
            progress::show_rate(self.bar);
            self.bar.set_position(row + 1);
        }
        Ok(())
    }

    fn append(&mut self, lines: &[Line]) -> Result<(), Stopped> {
        self.output.append(lines).map_err(Stopped::Otherwise)?;
        self.summary.written += lines.len() as u64;
        Ok(())
    }

    fn finish(self) -> Result<Summary, CommandError> {
        self.output.finish()?;
        Ok(self.summary)
    }
}

/// Why no more lines are written.
enum Stopped {
    /// A row can't be scored, in words.
    AtBadRow(String),
    /// Something else.
    Otherwise(CommandError),
}

impl From<Stopped> for CommandError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::AtBadRow(told) => {
                format!("{told}; mend the row, or pass bad ones over with --skip-bad-rows").into()
            }
            Stopped::Otherwise(error) => error,
        }
    }
}
