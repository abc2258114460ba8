//! Rows scored as one job of a server's: handed over at once, worked on when the server has nothing else to do.
//!
//! ```text
//! input ─ rows that lack scores ─▶ note beside the output ─▶ POST /v1/jobs ─▶ results by offset ─▶ lines in the rows' order
//! ```
//!
//! The note says what the job is called before anything is handed over, so that a run which was killed before it heard the
//! answer hands over the same job again and not another. Then it names the job and what was handed over: a run that finds
//! that takes up the job's results behind the lines that are there already, if the input is still what was handed over.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    Lines, Stopped, Summary,
    reader::{Parcel, Source, WaitingRow},
};
use crate::cli::{
    CommandError,
    backend::{JobState, Jobs, Scored},
};

/// How many parcels of rows wait to be read or sent.
const WAITING: usize = 4;
/// How long to wait for results when there are none, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// What is kept of a job until its last result is there.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    server: String,
    /// Under which name it is handed over, as often as that takes.
    submission: String,
    /// Once the server has said that it has it.
    job: Option<HandedOver>,
}

/// A job that a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HandedOver {
    id: String,
    /// The first row that was handed over.
    first_row: u64,
    /// A digest over the digests of all rows that were handed over.
    rows: String,
}

/// Scores everything.
pub(super) async fn run(mut source: Source, mut lines: Lines<'_>, jobs: &Jobs) -> Result<Summary, CommandError> {
    let path = note_beside(lines.output.path());
    let job = match read(&path)? {
        Some(Note { server, job: Some(job), .. }) if jobs.find(&job.id).await?.is_some() => {
            check(&server, &job, &source, jobs, &path).await?;
            job
        }
        earlier => {
            lines.bar.set_message("handing the rows over");
            // Of one without a job nobody knows whether the server has it.
            let begun = earlier.filter(|note| note.job.is_none() && note.server == jobs.server());
            match submit(&source, &lines, jobs, &path, begun.map(|note| note.submission)).await? {
                Some(job) => job,
                None => return lines.finish(),
            }
        }
    };
    lines.bar.set_message("waiting for the first scores");
    source.counted_from = job.first_row;
    match collect(&source, &mut lines, jobs, &job).await {
        Ok(()) => {}
        Err(stopped) => {
            if let Stopped::AtBadRow(_) = stopped {
                // A row that is mended has to be handed over again, and those behind it with it.
                jobs.remove(&job.id).await?;
                remove(&path)?;
            }
            return Err(stopped.into());
        }
    }
    jobs.remove(&job.id).await?;
    remove(&path)?;
    lines.finish()
}

/// Hands over the rows that lack scores, under the name that an earlier run gave them or a new one; none where all have
/// some.
async fn submit(
    source: &Source,
    lines: &Lines<'_>,
    jobs: &Jobs,
    path: &Path,
    begun: Option<String>,
) -> Result<Option<HandedOver>, CommandError> {
    let is_new = begun.is_none();
    let submission = begun.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let parcels = source.read(lines.output.earlier()?, WAITING)?;
    let mut note = Note { server: jobs.server().to_owned(), submission, job: None };
    write(path, &note)?;
    let (sender, body) = mpsc::channel(WAITING);
    let handing = hand_over(parcels, sender, lines.skip_bad_rows);
    let (handed, job) = tokio::join!(handing, jobs.submit(&note.submission, body));
    // Without a whole body the server has nothing.
    if is_new && !matches!(handed, Ok(Some(_))) {
        remove(path)?;
    }
    // What is wrong with a row explains why the server got no whole body.
    let Some((first_row, rows)) = handed? else { return Ok(None) };
    let job = HandedOver { id: job?, first_row, rows };
    note.job = Some(job.clone());
    write(path, &note)?;
    Ok(Some(job))
}

/// Sends rows as lines of JSON; where they begin and the digest over them, or none where there are none.
async fn hand_over(
    mut parcels: mpsc::Receiver<Parcel>,
    body: mpsc::Sender<io::Result<Bytes>>,
    skip_bad_rows: bool,
) -> Result<Option<(u64, String)>, CommandError> {
    let mut digest = Handed::default();
    while let Some(parcel) = parcels.recv().await {
        let failed = match parcel {
            Parcel::Done(_) => continue,
            Parcel::Broken(error) => error,
            Parcel::Rows(rows) => {
                let bad = rows.iter().find(|row| row.input.is_err()).filter(|_| !skip_bad_rows);
                if let Some(WaitingRow { place, input: Err(reason), .. }) = bad {
                    Stopped::AtBadRow(format!("{place}: {reason}")).into()
                } else {
                    // Whoever no longer takes the body has an error of its own.
                    let _ = body.send(Ok(digest.add(&rows)?)).await;
                    continue;
                }
            }
        };
        let _ = body.send(Err(io::Error::other("the rows can't be read on"))).await;
        return Err(failed);
    }
    Ok(digest.finish())
}

/// What was handed over so far.
#[derive(Default)]
struct Handed {
    first_row: Option<u64>,
    digest: Sha256,
}

impl Handed {
    /// Adds rows; their lines.
    fn add(&mut self, rows: &[WaitingRow]) -> Result<Bytes, CommandError> {
        let mut text = Vec::new();
        for row in rows {
            let Ok(input) = &row.input else { continue };
            self.first_row.get_or_insert(row.number);
            self.digest.update(&row.check);
            serde_json::to_writer(&mut text, input)?;
            text.push(b'\n');
        }
        Ok(text.into())
    }

    fn finish(self) -> Option<(u64, String)> {
        let digest = self.digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Some((self.first_row?, digest))
    }
}

/// Whether the input is still what was handed over.
async fn check(server: &str, job: &HandedOver, source: &Source, jobs: &Jobs, path: &Path) -> Result<(), CommandError> {
    let mut parcels = source.read(None, WAITING)?;
    let mut handed = Handed::default();
    while let Some(parcel) = parcels.recv().await {
        match parcel {
            Parcel::Done(_) => {}
            Parcel::Broken(error) => return Err(error),
            Parcel::Rows(mut rows) => {
                rows.retain(|row| row.number >= job.first_row);
                handed.add(&rows)?;
            }
        }
    }
    if handed.finish() == Some((job.first_row, job.rows.clone())) && server == jobs.server() {
        return Ok(());
    }
    Err(format!(
        "{} names the job {}, which was made of another input, with other settings or by another server; give the same, or \
         delete the file to have the rows without scores handed over anew",
        path.display(),
        job.id
    )
    .into())
}

/// Writes the results down as they come.
async fn collect(source: &Source, lines: &mut Lines<'_>, jobs: &Jobs, job: &HandedOver) -> Result<(), Stopped> {
    let earlier = lines.output.earlier().map_err(Stopped::Otherwise)?;
    let mut parcels = source.read(earlier, WAITING).map_err(Stopped::Otherwise)?;
    let mut results = Results { jobs, job: &job.id, offset: 0, here: VecDeque::new() };
    while let Some(parcel) = parcels.recv().await {
        let rows = match parcel {
            Parcel::Broken(error) => return Err(Stopped::Otherwise(error)),
            Parcel::Done(passed) => {
                lines.pass(passed);
                results.offset = passed.samples;
                continue;
            }
            Parcel::Rows(rows) => rows,
        };
        let mut scored = Vec::with_capacity(rows.len());
        for row in rows {
            let outcome = match &row.input {
                Ok(_) => results.next().await.map_err(Stopped::Otherwise)?,
                Err(reason) => Err(reason.clone()),
            };
            scored.push((row, outcome));
        }
        lines.write(scored)?;
    }
    Ok(())
}

/// The results of a job, one after another.
struct Results<'a> {
    jobs: &'a Jobs,
    job: &'a str,
    /// The place of the first result that isn't here yet.
    offset: u64,
    here: VecDeque<Result<Scored, String>>,
}

impl Results<'_> {
    /// The next one; waits until it is there.
    async fn next(&mut self) -> Result<Result<Scored, String>, CommandError> {
        let [mut pause, longest] = PAUSES;
        let mut ended = None;
        loop {
            if let Some(outcome) = self.here.pop_front() {
                return Ok(outcome);
            }
            self.here = self.jobs.results(self.job, self.offset).await?;
            self.offset += self.here.len() as u64;
            if !self.here.is_empty() {
                continue;
            }
            if let Some(state) = ended {
                return Err(format!("the job {} is {state} and has no result for row {}", self.job, self.offset).into());
            }
            match self.jobs.find(self.job).await? {
                // What came meanwhile is still to be asked for.
                Some(state @ (JobState::Done | JobState::Cancelled)) => ended = Some(state),
                Some(JobState::Receiving | JobState::Running) => {
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(longest);
                }
                None => {
                    let detail = format!(
                        "the server no longer knows the job {}; run the command again to have the rest scored by another",
                        self.job
                    );
                    return Err(detail.into());
                }
            }
        }
    }
}

fn note_beside(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".job");
    name.into()
}

fn read(path: &Path) -> Result<Option<Note>, CommandError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, &error)),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let path = path.display();
        format!("{path} is no note of a job: {error}; delete it to have the rows handed over anew").into()
    })
}

/// Writes a note in place of one that may be there: a run that is killed leaves one of both.
fn write(path: &Path, note: &Note) -> Result<(), CommandError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let written = fs::write(&new, serde_json::to_vec(note)?).and_then(|()| fs::rename(&new, path));
    written.map_err(|error| unusable(path, &error))
}

fn remove(path: &Path) -> Result<(), CommandError> {
    fs::remove_file(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &io::Error) -> CommandError {
    format!("{} can't be used: {error}; choose another --output", path.display()).into()
}
