//! A karat server, over its own `POST /v1/score`.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, Input, Overrides, Scored};
use crate::cli::CommandError;

/// A server that says neither when it has room nor that it is ready is asked again after this long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a server that is still loading is asked.
const LOADING_ATTEMPTS: usize = 300;
/// The type of the problem that a batch of fewer inputs doesn't have.
const TOO_MANY: &str = ":too-many-inputs";

/// By what balancers send equal prompts to equal replicas, where what was computed of them is kept.
const PREFIX: &str = "x-karat-prefix";

/// A server, and what holds for every sample that it is sent.
pub(in crate::cli) struct Server {
    pub(super) client: Client,
    /// Its address, without a slash at its end.
    pub(super) url: String,
    /// The fields that stand beside the samples.
    pub(super) options: Value,
}

pub(in crate::cli) struct Remote(Server);

#[derive(Deserialize)]
struct Reply {
    model_version: String,
    results: Vec<SampleReply>,
}

/// One result of a server's.
#[derive(Deserialize)]
pub(super) struct SampleReply {
    reward: f64,
    raw: f64,
    ensemble: EnsembleReply,
    tokens: usize,
    truncated: bool,
}

#[derive(Deserialize)]
struct EnsembleReply {
    mean: f64,
    worst_case: f64,
    variance: f64,
    #[serde(default)]
    members: Vec<f64>,
}

impl SampleReply {
    pub(super) fn of_version(self, model_version: String) -> Scored {
        let SampleReply { reward, raw, ensemble, tokens, truncated } = self;
        let EnsembleReply { mean, worst_case, variance, members } = ensemble;
        Scored { reward, raw, mean, worst_case, variance, members, tokens, truncated, model_version }
    }
}

/// What is read of a problem document.
#[derive(Deserialize)]
pub(super) struct Problem {
    r#type: String,
    pub(super) detail: String,
    #[serde(default)]
    index: Option<usize>,
}

impl Server {
    pub(super) fn new(url: &str, client: Client, overrides: Overrides) -> Result<Self, CommandError> {
        let mut options = serde_json::to_value(overrides)?;
        options["include"] = json!(["members"]);
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), options })
    }
}

impl Remote {
    pub(super) fn new(server: Server) -> Self {
        Self(server)
    }

    pub(super) async fn request(&self, inputs: &[&Input]) -> Result<Vec<Scored>, Failure> {
        let mut body = self.0.options.clone();
        body["inputs"] = json!(inputs);
        let prefix = inputs.first().map(|input| input.prefix()).unwrap_or_default();
        let mut loading = 0;
        loop {
            let response = self
                .0
                .client
                .post(format!("{}/v1/score", self.0.url))
                .header(PREFIX, &prefix)
                .json(&body)
                .send()
                .await
                .map_err(|error| Failure::Fatal(away(&error)))?;
            match response.status() {
                StatusCode::OK => return self.read(response).await,
                StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(pause(&response)).await,
                StatusCode::SERVICE_UNAVAILABLE if response.headers().contains_key(RETRY_AFTER) => {
                    loading += 1;
                    if loading == LOADING_ATTEMPTS {
                        return Err(self.refused(response).await);
                    }
                    tokio::time::sleep(pause(&response)).await;
                }
                _ => return Err(self.refused(response).await),
            }
        }
    }

    async fn read(&self, response: Response) -> Result<Vec<Scored>, Failure> {
        let reply: Reply = response.json().await.map_err(|error| Failure::Fatal(away(&error)))?;
        let version = reply.model_version;
        Ok(reply.results.into_iter().map(|sample| sample.of_version(version.clone())).collect())
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        match (status, serde_json::from_str::<Problem>(&text)) {
            (StatusCode::PAYLOAD_TOO_LARGE, Ok(problem)) => Failure::TooLarge(problem.detail),
            (StatusCode::PAYLOAD_TOO_LARGE, Err(_)) => Failure::TooLarge(text),
            (_, Ok(Problem { detail, index: Some(index), .. })) if status.is_client_error() => {
                Failure::Sample { index, reason: detail }
            }
            (_, Ok(problem)) if problem.r#type.ends_with(TOO_MANY) => Failure::TooLarge(problem.detail),
            (_, Ok(problem)) => Failure::Fatal(problem.detail.into()),
            (_, Err(_)) => Failure::Fatal(format!("{} answered {status}: {text}", self.0.url).into()),
        }
    }
}

/// That a server can't be reached, or broke off.
pub(super) fn away(error: &reqwest::Error) -> CommandError {
    let mut causes = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes = format!("{causes}: {cause}");
        source = cause.source();
    }
    format!("{causes}; check --server, and run the command again to go on").into()
}

/// How long the server asks to wait.
fn pause(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(PAUSE, Duration::from_secs)
}
