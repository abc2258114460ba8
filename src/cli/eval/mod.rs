//! `karat eval`: how good a model is at telling right responses from wrong ones, from a file of preferences.

mod items;
mod plot;
mod report;
mod table;

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clap::Args;
use futures_util::{StreamExt, stream};

use super::{
    CommandError,
    backend::{BackendArguments, Input, Scored},
    rows::Rows,
    style::{heading, say, say_json, tell},
};
use crate::telemetry::{self, LogFormat};
use items::{Item, Names, Read, Scores, Unscored};
use report::Report;

/// Responses in one request, about.
const BATCH: usize = 64;
const IN_FLIGHT: usize = 8;

/// Flags of `karat eval`.
#[derive(Debug, Clone, Args)]
pub(super) struct EvalArguments {
    /// The preferences: JSON Lines, or Parquet where the name ends in .parquet. Each row has the fields prompt, chosen
    /// and rejected, where chosen and rejected are texts, dialogues, or lists of either; or chosen and rejected are
    /// transcripts, as in hh-rlhf; or it has scores already.
    #[arg(value_name = "FILE")]
    input: PathBuf,

    #[command(flatten)]
    backend: BackendArguments,

    /// The field with what was asked: a text, or a list of messages.
    #[arg(long, default_value = "prompt", value_name = "FIELD")]
    prompt: String,

    /// The field with the right response or responses, or their scores.
    #[arg(long, default_value = "chosen", value_name = "FIELD")]
    chosen: String,

    /// The field with the wrong response or responses, or their scores.
    #[arg(long, default_value = "rejected", value_name = "FIELD")]
    rejected: String,

    /// The field with the part of the file that a row is counted with.
    #[arg(long, default_value = "subset", value_name = "FIELD")]
    subset: String,

    /// Leave bad rows out, instead of stopping at the first.
    #[arg(long)]
    skip_bad_rows: bool,

    /// Write the scores here as JSON Lines; "karat eval" reads the file again without a model.
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,

    /// Write a picture here, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub(super) fn eval(arguments: &EvalArguments) -> Result<(), CommandError> {
    telemetry::start_logging("warn,karat_hub=info,ort=error", LogFormat::Text)?;
    let mut read = arguments.read()?;
    if !read.unscored.is_empty() {
        let scored = score(&arguments.backend, std::mem::take(&mut read.unscored), arguments.skip_bad_rows)?;
        read.bad += scored.bad;
        read.items.extend(scored.items);
        read.items.sort_by_key(|(number, _)| *number);
    }
    let items: Vec<Item> = read.items.into_iter().map(|(_, item)| item).collect();
    let report = Report::of(&items)?;
    if let Some(path) = &arguments.scores {
        write_scores(&items, path)?;
    }
    if let Some(path) = &arguments.plot {
        plot::draw(&report, path)?;
    }
    if read.bad > 0 {
        tell(&format!("{} bad rows were left out", read.bad));
    }
    if arguments.json {
        return say_json(&report);
    }
    say(&format!("{}\n\n{}", heading(table::headline(&report)), table::table(&report)))
}

/// Rows by their place in the file.
#[derive(Default)]
struct Preferences {
    items: Vec<(u64, Item)>,
    unscored: Vec<(u64, String, Unscored)>,
    bad: usize,
}

impl EvalArguments {
    fn read(&self) -> Result<Preferences, CommandError> {
        let names =
            Names { prompt: &self.prompt, chosen: &self.chosen, rejected: &self.rejected, subset: &self.subset };
        let (mut found, mut broken) = (Preferences::default(), None);
        Rows::of(&self.input).each(|row| {
            let rows = match row.fields {
                Ok(fields) => match items::columns(&fields) {
                    Some(rows) => rows.iter().map(|row| items::read(row, &names)).collect(),
                    None => vec![items::read(&fields, &names)],
                },
                Err(reason) => vec![Err(reason)],
            };
            for read in rows {
                match read {
                    Ok(Read::Scored(item)) => found.items.push((row.number, item)),
                    Ok(Read::Unscored(item)) => found.unscored.push((row.number, row.place.clone(), item)),
                    Err(reason) => match bad_row(&row.place, &reason, self.skip_bad_rows) {
                        Ok(()) => found.bad += 1,
                        Err(error) => {
                            broken = Some(error);
                            return ControlFlow::Break(());
                        }
                    },
                }
            }
            ControlFlow::Continue(())
        })?;
        broken.map_or(Ok(found), Err)
    }
}

fn bad_row(place: &str, reason: &str, skip: bool) -> Result<(), CommandError> {
    let told = format!("{place}: {reason}");
    if skip {
        tell(&told);
        return Ok(());
    }
    Err(format!("{told}; mend the row, or leave bad ones out with --skip-bad-rows").into())
}

/// Scores every response of every preference.
fn score(
    arguments: &BackendArguments,
    unscored: Vec<(u64, String, Unscored)>,
    skip: bool,
) -> Result<Preferences, CommandError> {
    let backend = arguments.open()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let backend = &backend;
        let score = async |group: Vec<(u64, String, Unscored)>| {
            let sides = |item: &Unscored| item.chosen.iter().chain(&item.rejected).cloned().collect::<Vec<Input>>();
            let inputs: Vec<Input> = group.iter().flat_map(|(_, _, item)| sides(item)).collect();
            Ok::<_, CommandError>((group, backend.score(&inputs).await?))
        };
        let mut groups = stream::iter(groups(unscored)).map(score).buffered(IN_FLIGHT);
        let mut found = Preferences::default();
        while let Some(group) = groups.next().await {
            let (group, outcomes) = group?;
            let mut outcomes = outcomes.into_iter();
            for (number, place, item) in group {
                let mut side = |count: usize| -> Vec<_> { outcomes.by_ref().take(count).collect() };
                let (chosen, rejected) = (side(item.chosen.len()), side(item.rejected.len()));
                match (together(chosen), together(rejected)) {
                    (Ok(chosen), Ok(rejected)) => {
                        found.items.push((number, Item { label: item.label, chosen, rejected }));
                    }
                    (Err(reason), _) | (_, Err(reason)) => {
                        bad_row(&place, &reason, skip)?;
                        found.bad += 1;
                    }
                }
            }
        }
        Ok(found)
    });
    backend.close();
    done
}

/// Preferences that are scored together: about [`BATCH`] responses, and whole rows.
fn groups(unscored: Vec<(u64, String, Unscored)>) -> Vec<Vec<(u64, String, Unscored)>> {
    let (mut groups, mut responses) = (Vec::<Vec<_>>::new(), BATCH);
    for row in unscored {
        if responses >= BATCH {
            groups.push(Vec::new());
            responses = 0;
        }
        responses += row.2.chosen.len() + row.2.rejected.len();
        if let Some(group) = groups.last_mut() {
            group.push(row);
        }
    }
    groups
}

/// The scores of a whole side, or why one of its responses has none.
fn together(side: Vec<Result<Scored, String>>) -> Result<Vec<Scores>, String> {
    side.into_iter().map(|scored| scored.map(|s| Scores { reward: s.reward, members: s.members })).collect()
}

fn write_scores(items: &[Item], path: &Path) -> Result<(), CommandError> {
    let unusable =
        |error: std::io::Error| format!("{} can't be written: {error}; choose another --scores", path.display());
    let mut file = BufWriter::new(File::create(path).map_err(unusable)?);
    for item in items {
        serde_json::to_writer(&mut file, item)?;
        file.write_all(b"\n").map_err(unusable)?;
    }
    Ok(file.flush().map_err(unusable)?)
}
