//! `karat score`: a file of samples in, a file of scores out.
//!
//! ```text
//! reader thread ─ rows in batches ─▶ bounded queue ─▶ a few batches in flight ─▶ lines in the rows' order
//! ```
//!
//! Lines are written in the order of the rows, so what a killed run left behind is the beginning of the whole. The
//! next run reads it along with the input, checks each line's digest, and scores what is missing.

mod output;

use std::{collections::VecDeque, fmt, io::IsTerminal, mem, ops::ControlFlow, path::PathBuf, thread, time::Duration};

use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{
    CommandError,
    backend::{Backend, BackendArguments, Input},
    rows::{FieldArguments, Row, Rows},
};
use crate::telemetry::{self, LogFormat};
use output::{Earlier, Line, Outcome, Output};

/// How many bad rows are told one by one.
const TOLD_BAD_ROWS: u64 = 20;
const REDRAW: Duration = Duration::from_millis(250);
/// Before the first scores there is neither a rate nor a time that is left.
const WAITING: &str = "{spinner} {human_len} rows, {msg} ({elapsed})";
const BAR: &str = "{bar:30} {human_pos}/{human_len} rows, {rate}, {eta} left";
/// How many rows make the first request: one soon sees scores, and how fast they come. Each next one is twice as large.
const FIRST_BATCH: usize = 4;

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
}

/// A row that waits for its scores.
struct WaitingRow {
    number: u64,
    place: String,
    check: String,
    kept: Map<String, Value>,
    input: Result<Input, String>,
}

/// What the reader sends.
enum Parcel {
    /// Rows that an earlier run has done.
    Done(u64),
    /// Rows to score.
    Rows(Vec<WaitingRow>),
    /// The input or the earlier output can't be read on.
    Broken(CommandError),
}

pub(super) fn score(arguments: &ScoreArguments) -> Result<(), CommandError> {
    telemetry::start_logging("warn,karat_hub=info,ort=error", LogFormat::Text)?;
    let settings = arguments.backend.fingerprint()?;
    let rows = Rows::of(&arguments.input);
    let total = rows.count()?;
    let (output, earlier) = Output::open(&arguments.output)?;
    let bar = progress(total);
    bar.set_message("getting ready");
    let backend = arguments.backend.open()?;
    bar.set_message("waiting for the first scores");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let reader = Reader {
        fingerprint: format!("{settings} {:?} {:?}", arguments.fields, arguments.keep),
        fields: arguments.fields.clone(),
        keep: arguments.keep.clone(),
        batch: FIRST_BATCH.min(usize::try_from(arguments.batch)?),
        largest_batch: usize::try_from(arguments.batch)?,
        earlier,
    };
    let done = runtime.block_on(run(arguments, rows, reader, output, &backend, &bar));
    backend.close();
    let bad = done?;
    bar.finish();
    if bad > 0 {
        tell(&format!("{bad} bad rows were skipped; each has an \"error\" in {}", arguments.output.display()));
    }
    Ok(())
}

/// Scores everything; returns how many bad rows were skipped.
async fn run(
    arguments: &ScoreArguments,
    rows: Rows,
    reader: Reader,
    mut output: Output,
    backend: &Backend,
    bar: &ProgressBar,
) -> Result<u64, CommandError> {
    let in_flight = usize::try_from(arguments.in_flight)?;
    let (sender, queue) = mpsc::channel(in_flight);
    // It ends by itself: at the input's end, or when nobody takes its parcels any more.
    thread::Builder::new().name("karat-rows".to_owned()).spawn(move || reader.read(&rows, &sender))?;

    let parcels = stream::unfold(queue, async |mut queue| queue.recv().await.map(|parcel| (parcel, queue)));
    let mut scored = Box::pin(parcels.map(|parcel| score_parcel(backend, parcel)).buffered(in_flight));
    let mut bad = 0;
    while let Some(parcel) = scored.next().await {
        let lines = match parcel? {
            Scores::Done(rows) => {
                bar.set_position(rows);
                bar.reset_eta();
                continue;
            }
            Scores::Lines(lines) => lines,
        };
        let last = lines.back().map(|(_, line)| line.row);
        bad += write(&mut output, lines, arguments.skip_bad_rows, bad)?;
        if let Some(row) = last {
            show_rate(bar);
            bar.set_position(row + 1);
        }
    }
    output.finish()?;
    Ok(bad)
}

enum Scores {
    Done(u64),
    Lines(VecDeque<(String, Line)>),
}

async fn score_parcel(backend: &Backend, parcel: Parcel) -> Result<Scores, CommandError> {
    let mut rows = match parcel {
        Parcel::Done(rows) => return Ok(Scores::Done(rows)),
        Parcel::Broken(error) => return Err(error),
        Parcel::Rows(rows) => rows,
    };
    // Rows that can't be sent keep their reason; the others are scored together.
    let mut inputs = Vec::with_capacity(rows.len());
    for row in &mut rows {
        if let Ok(input) = &row.input {
            inputs.push(input.clone());
        }
    }
    let mut outcomes = backend.score(&inputs).await?.into_iter();
    let line = |row: WaitingRow| {
        let outcome = row.input.and_then(|_| outcomes.next().unwrap_or_else(|| Err("got no score".to_owned())));
        let outcome = outcome.map_or_else(|error| Outcome::Skipped { error }, Outcome::Scored);
        (row.place, Line { row: row.number, kept: row.kept, outcome, check: row.check })
    };
    Ok(Scores::Lines(rows.into_iter().map(line).collect()))
}

/// Writes lines up to the first bad row, or all of them where bad rows are skipped; returns how many are bad.
fn write(
    output: &mut Output,
    lines: VecDeque<(String, Line)>,
    skip_bad_rows: bool,
    bad_before: u64,
) -> Result<u64, CommandError> {
    let (mut sound, mut bad) = (Vec::with_capacity(lines.len()), 0);
    for (place, line) in lines {
        if let Outcome::Skipped { error } = &line.outcome {
            let told = format!("{place}: {error}");
            if !skip_bad_rows {
                output.append(&sound)?;
                return Err(format!("{told}; mend the row, or pass bad ones over with --skip-bad-rows").into());
            }
            bad += 1;
            if bad_before + bad <= TOLD_BAD_ROWS {
                tell(&told);
            }
        }
        sound.push(line);
    }
    output.append(&sound)?;
    Ok(bad)
}

/// Reads the rows on a thread of its own and passes over those that an earlier run has done.
struct Reader {
    fingerprint: String,
    fields: FieldArguments,
    keep: Vec<String>,
    /// How many rows make the next request.
    batch: usize,
    largest_batch: usize,
    /// Until the earlier run's lines are used up.
    earlier: Option<Earlier>,
}

impl Reader {
    fn read(mut self, rows: &Rows, sender: &mpsc::Sender<Parcel>) {
        let (mut batch, mut broken) = (Vec::with_capacity(self.batch), None);
        let read = rows.each(|row| {
            match self.take(row, sender) {
                Ok(Some(row)) => batch.push(row),
                Ok(None) => {}
                Err(error) => {
                    broken = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if batch.len() < self.batch {
                return ControlFlow::Continue(());
            }
            self.batch = (2 * self.batch).min(self.largest_batch);
            let full = mem::replace(&mut batch, Vec::with_capacity(self.batch));
            match sender.blocking_send(Parcel::Rows(full)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        let mut left_over = || match self.earlier.as_mut()?.next() {
            Ok(Some(done)) => Some(self.earlier.as_ref()?.mismatch(&format!("the input has no row {}", done.row))),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let last = match broken.or(read.err()) {
            None if batch.is_empty() => left_over().map(Parcel::Broken),
            None => Some(Parcel::Rows(batch)),
            Some(error) => Some(Parcel::Broken(error)),
        };
        if let Some(last) = last {
            // Whoever no longer listens has an error of its own to tell.
            let _ = sender.blocking_send(last);
        }
    }

    /// The row if it still has to be scored.
    fn take(&mut self, row: Row, sender: &mpsc::Sender<Parcel>) -> Result<Option<WaitingRow>, CommandError> {
        let check = row.check(&self.fingerprint);
        if let Some(earlier) = &mut self.earlier {
            match earlier.next()? {
                Some(done) if done.row == row.number && done.check == check => return Ok(None),
                Some(done) => return Err(earlier.mismatch(&format!("row {} was another one", done.row))),
                None => {
                    self.earlier = None;
                    // As above: the other side has an error of its own.
                    let _ = sender.blocking_send(Parcel::Done(row.number));
                }
            }
        }
        let kept = match &row.fields {
            Ok(fields) => self.keep.iter().filter_map(|name| Some((name.clone(), fields.get(name)?.clone()))).collect(),
            Err(_) => Map::new(),
        };
        let input = row.fields.and_then(|fields| self.fields.input(&fields));
        Ok(Some(WaitingRow { number: row.number, place: row.place, check, kept, input }))
    }
}

/// A bar on standard error where somebody watches it.
fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.enable_steady_tick(REDRAW);
    // The templates are constants that a test reads.
    if let Ok(style) = ProgressStyle::with_template(WAITING) {
        bar.set_style(style);
    }
    bar
}

/// The bar that tells a rate, from the first scores on.
fn show_rate(bar: &ProgressBar) {
    if !bar.message().is_empty()
        && let Ok(style) = ProgressStyle::with_template(BAR)
    {
        bar.set_message("");
        bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A line that can't be drawn is drawn again soon.
            let _ = write!(out, "{}", rate(state.per_sec()));
        }));
        bar.reset_eta();
    }
}

/// Rows a second in as many digits as mean something, or seconds a row where they take longer.
fn rate(rows_a_second: f64) -> String {
    match rows_a_second {
        rate if rate >= 10.0 => format!("{rate:.0} rows/s"),
        rate if rate >= 1.0 => format!("{rate:.1} rows/s"),
        rate if rate > 0.0 => format!("{:.1} s a row", 1.0 / rate),
        _ => "no rate yet".to_owned(),
    }
}

#[expect(clippy::print_stderr, reason = "a command line program says there what its user should know")]
fn tell(text: &str) {
    eprintln!("karat: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok() && ProgressStyle::with_template(WAITING).is_ok());
    }

    #[test]
    fn rates_are_short_and_never_zero_for_what_is_slow() {
        assert_eq!([1234.5, 6.8106, 0.25, 0.0].map(rate), ["1234 rows/s", "6.8 rows/s", "4.0 s a row", "no rate yet"]);
    }
}
