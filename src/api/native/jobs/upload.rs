//! A job on its way in: its rows are kept as they arrive, in bounded memory, and are nothing until the last is there.

use axum::{
    body::{Body, BodyDataStream},
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::HeaderMap;
use karat_engine::engine::ScoreRequest;
use karat_rules::domain::Sample;
use karat_runs::store::{Accepted, NewJob};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{
        call::split,
        request::{Input, Options},
        result::Include,
    },
    submission::Arrived,
};
use crate::api::{
    AppState, body,
    problem::{Problem, ProblemType, invalid},
    runs::{another_keys, now},
};

/// How many rows are written at once, and about how many bytes: rows that hold images are long.
const TOGETHER: usize = 512;
const BYTES_TOGETHER: usize = 8 << 20;
/// The most rows of a job that lives in memory.
const MOST_IN_MEMORY: u64 = 100_000;
/// The most rows of a job that lives in a file.
const MOST: u64 = 50_000_000;

/// What a job's options hold beside those that all scoring routes share.
#[derive(Debug, Deserialize)]
pub(super) struct JobOptions {
    /// What to add to each result.
    #[serde(default)]
    pub(super) include: BTreeSet<Include>,
    /// What to score, where the body is one object.
    #[serde(default)]
    inputs: Option<Vec<Box<RawValue>>>,
}

impl JobOptions {
    /// What a job's first line says.
    pub(super) fn parse(text: &[u8]) -> Result<(Self, Options), Problem> {
        split(text)
    }
}

/// The body of a job, unread.
#[derive(Debug)]
pub(super) struct Upload {
    state: AppState,
    headers: HeaderMap,
    body: Body,
}

impl FromRequest<AppState> for Upload {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Self::Rejection> {
        let state = state.visited_by(request.extensions());
        let (parts, body) = request.into_parts();
        Ok(Self { state, headers: parts.headers, body })
    }
}

impl Upload {
    /// Reads the body and keeps its rows; the id of the job, which lasts from now on or has lasted since it was handed over
    /// before.
    ///
    /// # Errors
    /// When the body can't be read, a line isn't a sample, the options could never score one, or another job has its name.
    /// Nothing of it is kept.
    pub(super) async fn receive(self) -> Result<String, Problem> {
        let state = &self.state;
        let mut named = Arrived::named(&self.headers)?;
        let mut lines = Lines::new(self.body, state.limits.receive, state.limits.body_bytes);
        let Some(first) = lines.next().await? else { return Err(no_rows()) };
        let (head, mut given) = match JobOptions::parse(&first) {
            Ok((mut options, _)) => (first, options.inputs.take()),
            // A body that is one object may be written over several lines.
            Err(problem) if problem.kind() == ProblemType::MalformedJson => {
                let whole = lines.rest(first).await?;
                let (mut options, _) = JobOptions::parse(&whole)?;
                (whole, options.inputs.take())
            }
            Err(problem) => return Err(problem),
        };
        let head = without_inputs(&head)?;
        let id = uuid::Uuid::now_v7().to_string();
        let new = NewJob { id: id.clone(), options: head.clone(), key: state.visit.key_name().map(str::to_owned) };
        state.runs.jobs.begin(new, now()).await?;
        if let Some(named) = &mut named {
            named.add(&head);
        }
        let mut arriving = Arriving { state, id: id.clone(), head, named, rows: Vec::new(), bytes: 0, count: 0 };
        let arrived = async move {
            for input in given.take().unwrap_or_default() {
                arriving.add(input.get().as_bytes()).await?;
            }
            while let Some(line) = lines.next().await? {
                arriving.add(&line).await?;
            }
            arriving.finish().await
        };
        match arrived.await {
            Ok(Accepted::New) => Ok(id),
            Ok(Accepted::Before(earlier)) => Ok(earlier),
            Ok(Accepted::Other(earlier)) => Err(another(&earlier)),
            Err(problem) => {
                // It would be dropped at the next start as well.
                let _ = state.runs.jobs.remove(id).await;
                Err(problem)
            }
        }
    }
}

fn no_rows() -> Problem {
    Problem::new(
        ProblemType::NoInputs,
        "the job has no rows; send a line of options and then a line for each input, or an object with \"inputs\"",
    )
}

fn another(earlier: &str) -> Problem {
    let detail = format!(
        "the Idempotency-Key is that of the job {earlier}, whose options or rows are others; send each job under a key of its \
         own"
    );
    Problem::new(ProblemType::OtherJob, detail)
}

/// The options as they are kept: without the inputs, which are rows.
fn without_inputs(head: &[u8]) -> Result<String, Problem> {
    let mut fields: serde_json::Map<String, serde_json::Value> = body::parse(head)?;
    fields.remove("inputs");
    Ok(serde_json::Value::Object(fields).to_string())
}

/// A job whose rows are arriving.
struct Arriving<'a> {
    state: &'a AppState,
    id: String,
    head: String,
    named: Option<Arrived>,
    rows: Vec<String>,
    /// How long those are together.
    bytes: usize,
    count: u64,
}

impl Arriving<'_> {
    async fn add(&mut self, line: &[u8]) -> Result<(), Problem> {
        let place = self.count + self.rows.len() as u64;
        let at = |problem: Problem| problem.about(&format!("row {place}"));
        let input: Input = body::parse(line).map_err(at)?;
        let sample = input.into_sample().map_err(|reason| at(invalid(reason)))?;
        if place == 0 {
            self.check(sample)?;
        }
        let most = if self.state.runs.store.lasts() { MOST } else { MOST_IN_MEMORY };
        if place >= most {
            let advice =
                if self.state.runs.store.lasts() { "split it" } else { "split it, or start karat with --state" };
            let detail = format!("a job takes at most {most} rows here; {advice}");
            return Err(Problem::new(ProblemType::TooManyInputs, detail));
        }
        // It was parsed, so that it is text; white space between lines is no part of it.
        let row = String::from_utf8_lossy(line.trim_ascii()).into_owned();
        if let Some(named) = &mut self.named {
            named.add(&row);
        }
        self.bytes += row.len();
        self.rows.push(row);
        let is_full = self.rows.len() >= TOGETHER || self.bytes >= BYTES_TOGETHER;
        if is_full { self.write().await } else { Ok(()) }
    }

    /// Whether the options can score such a sample at all: better now than on every row.
    fn check(&self, sample: Sample) -> Result<(), Problem> {
        let (_, mut options) = JobOptions::parse(self.head.as_bytes())?;
        if options.has_lists() || options.spares_others() {
            return Err(invalid(
                "a job's rows are scored by themselves, and one that can't be scored fails alone: leave counts, margins, \
                 successes and on_refused out",
            ));
        }
        if let Some(tag) = options.take_run_fields().tag()?
            && !self.state.may_use_run(&tag.run)
        {
            return Err(another_keys(&tag.run));
        }
        let request: ScoreRequest = self.state.let_in(options.into_request(vec![Ok(sample)], false)?)?;
        Ok(self.state.engine.check_scores(&request)?)
    }

    async fn write(&mut self) -> Result<(), Problem> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let (place, count) = (self.count, rows.len() as u64);
        self.state.runs.jobs.add_rows(self.id.clone(), place, rows).await?;
        self.count += count;
        Ok(())
    }

    async fn finish(mut self) -> Result<Accepted, Problem> {
        self.write().await?;
        if self.count == 0 {
            return Err(no_rows());
        }
        let submission = self.named.map(Arrived::finish);
        Ok(self.state.runs.jobs.accept(self.id, self.count, submission).await?)
    }
}

/// The lines of a body that hold more than white space, as they arrive.
struct Lines {
    body: BodyDataStream,
    waiting: BytesMut,
    ended: bool,
    patience: Duration,
    longest: usize,
}

impl Lines {
    fn new(body: Body, patience: Duration, longest: usize) -> Self {
        Self { body: body.into_data_stream(), waiting: BytesMut::new(), ended: false, patience, longest }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.waiting[looked..].iter().position(|byte| *byte == b'\n') {
                let line = self.waiting.split_to(looked + end + 1).freeze();
                looked = 0;
                if line.len() > self.longest {
                    return Err(self.too_large());
                }
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.ended {
                let line = self.waiting.split().freeze();
                return Ok(Some(line).filter(|line| !line.trim_ascii().is_empty()));
            }
            looked = self.waiting.len();
            self.read().await?;
        }
    }

    fn too_large(&self) -> Problem {
        let detail = format!(
            "a line, or a body that isn't JSON Lines, has more than {} bytes; send a line for each input, or raise \
             --max-body-bytes",
            self.longest
        );
        Problem::new(ProblemType::BodyTooLarge, detail)
    }

    /// All that is left, after what was read already.
    async fn rest(&mut self, first: Bytes) -> Result<Bytes, Problem> {
        let rest = self.waiting.split();
        self.waiting.extend_from_slice(&first);
        self.waiting.extend_from_slice(&rest);
        while !self.ended {
            self.read().await?;
        }
        Ok(self.waiting.split().freeze())
    }

    async fn read(&mut self) -> Result<(), Problem> {
        if self.waiting.len() > self.longest {
            return Err(self.too_large());
        }
        match tokio::time::timeout(self.patience, self.body.next()).await {
            Err(_) => {
                let detail = format!("nothing came for {} s; send the body faster", self.patience.as_secs_f64());
                Err(Problem::new(ProblemType::BodyTooSlow, detail))
            }
            Ok(None) => {
                self.ended = true;
                Ok(())
            }
            Ok(Some(Ok(bytes))) => {
                self.waiting.extend_from_slice(&bytes);
                Ok(())
            }
            Ok(Some(Err(_))) => {
                Err(Problem::new(ProblemType::BodyIncomplete, "the body broke off before its end; send it whole"))
            }
        }
    }
}
