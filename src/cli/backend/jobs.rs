//! A karat server's jobs, over its `/v1/jobs`.

use std::{collections::VecDeque, fmt, io};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{
    Scored,
    remote::{Problem, SampleReply, Server, away},
};
use crate::cli::CommandError;

/// How many results are asked for at once.
const RESULTS: usize = 1000;
/// The header that says what the client calls a job.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The jobs of one server.
pub(in crate::cli) struct Jobs(Server);

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum JobState {
    /// Its rows are still arriving.
    Receiving,
    /// Its rows are being scored, or wait for that.
    Running,
    /// Every row has a result.
    Done,
    /// Somebody cancelled it.
    Cancelled,
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receiving => "receiving",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        })
    }
}

#[derive(Deserialize)]
struct JobReply {
    id: String,
    state: JobState,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RowReply {
    Scored {
        model_version: String,
        #[serde(flatten)]
        sample: SampleReply,
    },
    Failed {
        error: Problem,
    },
}

impl Jobs {
    pub(super) fn new(server: Server) -> Self {
        Self(server)
    }

    /// The server's address.
    pub(in crate::cli) fn server(&self) -> &str {
        &self.0.url
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/jobs{path}", self.0.url)
    }

    /// Hands samples over, a line of JSON each, as they come; the job's id, which is the same one however often it is handed
    /// over under that name.
    pub(in crate::cli) async fn submit(
        &self,
        name: &str,
        lines: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<String, CommandError> {
        let head: io::Result<Bytes> = Ok(Bytes::from(format!("{}\n", self.0.options)));
        let body = stream::unfold((Some(head), lines), async |(head, mut lines)| {
            let next = match head {
                Some(head) => Some(head),
                None => lines.recv().await,
            };
            next.map(|next| (next, (None, lines)))
        });
        let request = self.0.client.post(self.url("")).header(IDEMPOTENCY_KEY, name).body(Body::wrap_stream(body));
        let job: JobReply = self.read(request.send().await.map_err(|error| away(&error))?).await?;
        Ok(job.id)
    }

    /// How far a job is; none where the server doesn't know it.
    pub(in crate::cli) async fn find(&self, id: &str) -> Result<Option<JobState>, CommandError> {
        let response = self.0.client.get(self.url(&format!("/{id}"))).send().await.map_err(|error| away(&error))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(self.read::<JobReply>(response).await?.state))
    }

    /// The results that are there from a place on, in order; an entry is a reason where a row can't be scored.
    pub(in crate::cli) async fn results(
        &self,
        id: &str,
        offset: u64,
    ) -> Result<VecDeque<Result<Scored, String>>, CommandError> {
        let url = self.url(&format!("/{id}/results?offset={offset}&limit={RESULTS}"));
        let response = self.0.client.get(url).send().await.map_err(|error| away(&error))?;
        let text = self.whole(response).await?;
        let read = text.lines().map(|line| {
            Ok(match serde_json::from_str(line).map_err(|error| format!("a result can't be read: {error}"))? {
                RowReply::Scored { model_version, sample } => Ok(sample.of_version(model_version)),
                RowReply::Failed { error } => Err(error.detail),
            })
        });
        read.collect()
    }

    /// Removes a job with its results; one that isn't done is cancelled first.
    pub(in crate::cli) async fn remove(&self, id: &str) -> Result<(), CommandError> {
        for _ in 0..2 {
            let url = self.url(&format!("/{id}"));
            let response = self.0.client.delete(url).send().await.map_err(|error| away(&error))?;
            if response.status() == StatusCode::NOT_FOUND {
                break;
            }
            self.whole(response).await?;
        }
        Ok(())
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, CommandError> {
        let text = self.whole(response).await?;
        serde_json::from_str(&text)
            .map_err(|error| format!("{} answered what is no job of karat's: {error}", self.0.url).into())
    }

    /// The text of a reply that isn't a problem.
    async fn whole(&self, response: Response) -> Result<String, CommandError> {
        let status = response.status();
        let text = response.text().await.map_err(|error| away(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        Err(match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => problem.detail.into(),
            Err(_) => format!("{} answered {status}: {text}", self.0.url).into(),
        })
    }
}
