//! What scores the samples of an offline command: a running server, or models in this process.

mod connection;
mod jobs;
mod local;
mod remote;

use std::path::PathBuf;

use clap::Args;
use karat_engine::{
    repository::{ModelSource, ModelSourceError},
    text::Truncation,
};
use karat_rules::domain::{Conversation, Message, ModelName, ModelNameError, Picture, Sample, catalogue::Choice};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::CommandError;
use crate::api::ImageSource;
use connection::ConnectionArguments;

pub(super) use jobs::{JobState, Jobs};

/// Flags that say what scores, and how.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "the comments are the flags' help, where backticks would stand as they are")]
pub(super) struct BackendArguments {
    /// The model that scores: its name, or in place of a name of --models a checkpoint's folder or a model of the Hugging
    /// Face Hub, as ./FOLDER, org/name or org/name@revision.
    #[arg(long, value_name = "MODEL", value_parser = scorer)]
    model: Option<Scorer>,

    /// A running karat server, such as http://127.0.0.1:8080; instead of --models.
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    #[command(flatten)]
    connection: ConnectionArguments,

    /// A model repository, whose models this process loads itself.
    #[arg(long, env = "KARAT_MODELS", default_value = "models", value_name = "FOLDER")]
    models: PathBuf,

    /// The ONNX Runtime library, with --models; by default the one that "karat serve" would take.
    #[arg(long, env = "KARAT_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,

    /// How the members' scores become one, as a name or as JSON such as '{"uncertainty_weighted": {"lambda": 0.5}}'; by
    /// default as the model says.
    #[arg(long, value_name = "RULE", value_parser = choice)]
    aggregate: Option<Choice>,

    /// What happens to the reward after that, as a JSON list such as '[{"clip": {"min": -5}}]'; by default as the model
    /// says.
    #[arg(long, value_name = "RULES", value_parser = choices)]
    transforms: Option<Choices>,

    /// What happens to samples that are longer than the model takes: refuse, prompt_start or response_end; by default as
    /// the model says.
    #[arg(long, value_name = "POLICY", value_parser = truncation)]
    truncation: Option<Truncation>,
}

/// What scores.
#[derive(Debug, Clone)]
enum Scorer {
    /// A model of the server or of the repository.
    Named(ModelName),
    /// A model by its place.
    Placed(ModelSource),
}

impl Scorer {
    fn name(&self) -> &ModelName {
        match self {
            Self::Named(name) => name,
            Self::Placed(source) => source.name(),
        }
    }
}

/// No name has a slash in it, and every place but those of a few old models has one.
fn scorer(text: &str) -> Result<Scorer, String> {
    if text.contains(['/', '=']) {
        return text.parse().map(Scorer::Placed).map_err(|error: ModelSourceError| error.to_string());
    }
    text.parse().map(Scorer::Named).map_err(|error: ModelNameError| error.to_string())
}

/// A list of transforms; a type of its own, since a list of flags means something else on a command line.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
struct Choices(Vec<Choice>);

fn choice(text: &str) -> Result<Choice, String> {
    if text.trim_start().starts_with(['{', '"']) {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    Ok(Choice::named(text))
}

fn choices(text: &str) -> Result<Choices, String> {
    serde_json::from_str(text).map(Choices).map_err(|error| error.to_string())
}

fn truncation(text: &str) -> Result<Truncation, String> {
    serde_json::from_value(Value::from(text)).map_err(|error| error.to_string())
}

/// What holds for every sample of a run.
#[derive(Debug, Clone, Serialize)]
struct Overrides {
    model: ModelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate: Option<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transforms: Option<Choices>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation: Option<Truncation>,
}

/// One sample as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Input {
    /// A single turn.
    Pair {
        /// What was asked.
        prompt: String,
        /// The answer to score.
        response: String,
    },
    /// A dialogue that ends with the answer to score.
    Messages {
        /// The turns, oldest first.
        messages: Vec<Message>,
    },
    /// An image, of models that see.
    Image {
        /// What was asked for; empty where the model rates the image by itself.
        prompt: String,
        /// The file as a data URI.
        image: String,
        /// Those that it should be like, as data URIs.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        reference_images: Vec<String>,
    },
}

impl Input {
    /// The sample.
    ///
    /// # Errors
    /// When there is nothing to score, with what to change.
    pub(super) fn sample(&self) -> Result<Sample, String> {
        let sample = match self.clone() {
            Self::Pair { prompt, response } => Sample::from_prompt(prompt, response),
            Self::Messages { messages } => Conversation::new(messages).map(Sample::Conversation),
            Self::Image { prompt, image, reference_images } => {
                let read = |written: &String| ImageSource::parse(written).and_then(ImageSource::into_image);
                let references = reference_images.iter().map(read).collect::<Result<_, _>>()?;
                return Ok(Sample::Picture(Picture::new(prompt, references, read(&image)?)));
            }
        };
        sample.map_err(|error| error.to_string())
    }
}

impl Input {
    /// A digest over what stands before the response: equal for all responses to a prompt.
    fn prefix(&self) -> String {
        let digest = match self {
            Self::Pair { prompt, .. } | Self::Image { prompt, .. } => {
                Sha256::new().chain_update("user\0").chain_update(prompt).chain_update("\0")
            }
            Self::Messages { messages } => {
                let turns = messages.split_last().map_or(&[][..], |(_, turns)| turns);
                turns.iter().fold(Sha256::new(), |digest, turn| {
                    let Message { role, content } = turn;
                    digest.chain_update(role.as_str()).chain_update("\0").chain_update(content).chain_update("\0")
                })
            }
        };
        digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a model says about one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scored {
    /// The aggregate after all transforms.
    pub(super) reward: f64,
    /// The aggregate before any transform.
    pub(super) raw: f64,
    /// The mean of the members.
    pub(super) mean: f64,
    /// The lowest member.
    pub(super) worst_case: f64,
    /// The population variance of the members.
    pub(super) variance: f64,
    /// Each member's score.
    pub(super) members: Vec<f64>,
    /// The length in tokens, after any truncation.
    pub(super) tokens: usize,
    /// Whether anything was cut.
    pub(super) truncated: bool,
    /// Exactly which model it was.
    pub(super) model_version: String,
}

/// Why a batch has no scores.
#[derive(Debug)]
enum Failure {
    /// One of its samples can't be scored.
    Sample { index: usize, reason: String },
    /// It is too large for the server.
    TooLarge(String),
    /// Nothing can be scored like this.
    Fatal(CommandError),
}

/// Something that scores.
pub(super) enum Backend {
    Local(Box<local::Local>),
    Remote(remote::Remote),
}

impl BackendArguments {
    /// What makes scores of one run unlike those of another, as JSON: everything but which process computes them.
    pub(super) fn fingerprint(&self) -> Result<String, CommandError> {
        let overrides = serde_json::to_string(&self.overrides()?)?;
        Ok(match &self.model {
            Some(Scorer::Placed(source)) => format!("{overrides} of {source}"),
            _ => overrides,
        })
    }

    fn overrides(&self) -> Result<Overrides, CommandError> {
        let model = self
            .model
            .as_ref()
            .map(|scorer| scorer.name().clone())
            .ok_or("name what scores: --model, and --server or --models")?;
        Ok(Overrides {
            model,
            aggregate: self.aggregate.clone(),
            transforms: self.transforms.clone(),
            truncation: self.truncation,
        })
    }

    /// Gets ready to score; blocks while models load.
    ///
    /// Must be called before any other thread runs: loading ONNX Runtime sets an environment variable.
    pub(super) fn open(&self) -> Result<Backend, CommandError> {
        let overrides = self.overrides()?;
        let models = match (&self.server, &self.model) {
            (Some(url), _) => {
                let server = self.server(url, overrides)?;
                return Ok(Backend::Remote(remote::Remote::new(server)));
            }
            (None, Some(Scorer::Placed(source))) => local::Models::One(source.clone()),
            (None, _) => local::Models::Repository(self.models.clone()),
        };
        Ok(Backend::Local(Box::new(local::Local::load(models, self.onnxruntime.as_deref(), overrides)?)))
    }
}

impl BackendArguments {
    /// The jobs of the server that is named.
    pub(super) fn jobs(&self) -> Result<Jobs, CommandError> {
        let url = self.server.as_ref().ok_or("a job is a server's: name one with --server")?;
        Ok(Jobs::new(self.server(url, self.overrides()?)?))
    }

    fn server(&self, url: &str, overrides: Overrides) -> Result<remote::Server, CommandError> {
        if let Some(Scorer::Placed(source)) = &self.model {
            return Err(format!("with --server, --model is the name of one of its models, not {source}").into());
        }
        remote::Server::new(url, self.connection.client()?, overrides)
    }
}

impl Backend {
    /// Scores the inputs; an entry is a reason where that input can't be scored.
    ///
    /// # Errors
    /// When nothing can be scored: the server or the model is away, or a rule doesn't fit the model.
    pub(super) async fn score(&self, inputs: &[Input]) -> Result<Vec<Result<Scored, String>>, CommandError> {
        let mut outcomes: Vec<Option<Result<Scored, String>>> = vec![None; inputs.len()];
        let mut groups = vec![(0..inputs.len()).collect::<Vec<usize>>()];
        while let Some(mut group) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            let batch: Vec<&Input> = group.iter().map(|index| &inputs[*index]).collect();
            match self.request(&batch).await {
                Ok(scored) if scored.len() == group.len() => {
                    for (index, scored) in group.into_iter().zip(scored) {
                        outcomes[index] = Some(Ok(scored));
                    }
                }
                Ok(scored) => {
                    return Err(format!("{} samples were sent and {} scores came", group.len(), scored.len()).into());
                }
                Err(Failure::Sample { index, reason }) if index < group.len() => {
                    outcomes[group.remove(index)] = Some(Err(reason));
                    groups.push(group);
                }
                Err(Failure::TooLarge(_)) if group.len() > 1 => {
                    let half = group.split_off(group.len() / 2);
                    groups.extend([half, group]);
                }
                Err(Failure::TooLarge(reason)) => outcomes[group[0]] = Some(Err(reason)),
                Err(Failure::Sample { reason, .. }) => return Err(reason.into()),
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
        // Every index left a group only by getting its outcome.
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn request(&self, inputs: &[&Input]) -> Result<Vec<Scored>, Failure> {
        match self {
            Self::Local(local) => local.request(inputs).await,
            Self::Remote(remote) => remote.request(inputs).await,
        }
    }

    /// Stops what this process started.
    pub(super) fn close(self) {
        if let Self::Local(local) = self {
            local.close();
        }
    }
}
