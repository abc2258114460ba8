//! Why a request can't be scored, as typed causes; each API dialect gives the kinds its own shape.

use std::{sync::Arc, time::Duration};

use karat_rules::{
    aggregate::AggregationError,
    domain::{ModelName, NonFinite, catalogue::ChoiceError},
    head::{HeadError, ProbeError},
    transform::TransformError,
};
use karat_runtime::RuntimeError;

use crate::{
    generate::{GenerateError, GenerationRefusal},
    repository::NoModel,
    schedule::QueueRefusal,
    text::TextError,
};

/// What kind of error it is: who must change what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller sent something that can't be scored.
    Invalid,
    /// A sample is longer than the model takes.
    TooLong,
    /// There is no such model.
    NotFound,
    /// The model is there in other versions than the one that was asked for.
    OtherVersion,
    /// The model is loading, or failed to load.
    Unavailable,
    /// Too much is queued; try later.
    Overloaded,
    /// The caller's deadline passed.
    Deadline,
    /// The model or the runtime failed.
    Runtime,
    /// karat failed.
    Internal,
}

/// Why a request can't be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The request holds nothing.
    #[error("the request has no samples; send at least one")]
    NoSamples,
    /// The name stands for no model that takes requests.
    #[error(transparent)]
    NoModel(#[from] NoModel),
    /// An aggregation is unknown or its parameters are wrong.
    #[error(transparent)]
    Aggregation(#[from] ChoiceError),
    /// A transform is unknown, doesn't fit the model, or overflowed.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// An aggregation doesn't fit the model's members.
    #[error("aggregate: {0}")]
    Unsuitable(AggregationError),
    /// A transform that learns from what it sees can't do so in one request.
    #[error(
        "transform {name:?} learns from request to request, so it has to stand in a model's manifest; in a request, \
         choose one without memory such as \"z_score\""
    )]
    NeedsMemory {
        /// The transform.
        name: String,
    },
    /// What was sent is no sample.
    #[error("{reason}")]
    NoSample {
        /// Its index in the request.
        index: usize,
        /// Where it stands, what is wrong with it and what to change.
        reason: String,
    },
    /// A sample can't be turned into tokens.
    #[error("sample {index}: {source}")]
    Sample {
        /// The sample's index in the request.
        index: usize,
        /// The cause.
        source: TextError,
    },
    /// A sample has another shape than the model's head takes.
    #[error("sample {index}: {source}")]
    Probe {
        /// The sample's index in the request.
        index: usize,
        /// The cause.
        source: ProbeError,
    },
    /// Token ids were sent to a composite.
    #[error(
        "token ids belong to one tokenizer, and the models of this composite have their own; send text or messages"
    )]
    TokensForSeveral,
    /// Too much is queued.
    #[error(transparent)]
    Refused(#[from] QueueRefusal),
    /// The deadline passed first.
    #[error("the request's timeout passed before it was scored; allow more time, or send fewer samples at once")]
    Expired,
    /// A forward pass failed.
    #[error("the model {model} failed: {source}")]
    Runtime {
        /// The model.
        model: ModelName,
        /// The cause.
        source: Arc<RuntimeError>,
    },
    /// A model returned something that is no score.
    #[error("{}the model {model} gave no usable score{}: {source}", of_sample(*index), by(*.graph))]
    Head {
        /// The model.
        model: ModelName,
        /// The sample's index in the request, where one alone is concerned.
        index: Option<usize>,
        /// Which of the model's graphs it was, counted from 1, where it has several and one is at fault.
        graph: Option<usize>,
        /// The cause.
        source: HeadError,
    },
    /// A graph computed what is no number, and no head could read it.
    #[error("sample {index}: the model {model} gave no usable score{}: {source}", by(*.graph))]
    NotFinite {
        /// The model.
        model: ModelName,
        /// The sample's index in the request.
        index: usize,
        /// Which of the model's graphs it was, counted from 1, where it has several.
        graph: Option<usize>,
        /// The cause.
        source: Arc<RuntimeError>,
    },
    /// The members' scores can't be aggregated.
    #[error("sample {index}: {source}")]
    Aggregate {
        /// The sample's index in the request.
        index: usize,
        /// The cause.
        source: AggregationError,
    },
    /// A statistic of the members overflowed.
    #[error("sample {index}: a statistic of the members overflowed: {source}")]
    Statistic {
        /// The sample's index in the request.
        index: usize,
        /// The cause.
        source: NonFinite,
    },
    /// The model gives vectors and no rewards.
    #[error("the model {model} gives embeddings and no rewards; choose another one to score")]
    ScoresNothing {
        /// The model.
        model: ModelName,
    },
    /// The model gives no embeddings.
    #[error("the model {model} gives no embeddings; choose one whose manifest has head = \"embedding\"")]
    EmbedsNothing {
        /// The model.
        model: ModelName,
    },
    /// The model writes no critiques.
    #[error("the model {model} writes no critiques; choose one whose manifest has a [critique] table")]
    WritesNothing {
        /// The model.
        model: ModelName,
    },
    /// The context has no room for a critique.
    #[error(
        "the question has {prompt} tokens and the critique {wanted}, and the model takes {most} of both; shorten the \
         prompt or the response, or lower max_tokens if the question alone fits"
    )]
    NoRoom {
        /// The question's length.
        prompt: usize,
        /// How many tokens were asked for.
        wanted: usize,
        /// The model's limit.
        most: usize,
    },
    /// Texts can't be written now, or not so many or so long.
    #[error(transparent)]
    NotWritten(#[from] GenerationRefusal),
    /// A text broke off.
    #[error("the model {model} broke off: {source}")]
    Generate {
        /// The model.
        model: ModelName,
        /// The cause.
        source: GenerateError,
    },
    /// The model's workers have stopped.
    #[error("the server is shutting down; send the request to another one")]
    Stopped,
    /// A thread of karat panicked.
    #[error("an internal task failed; the server's log has the cause")]
    Panicked,
}

/// Which graph of several it was.
fn by(graph: Option<usize>) -> String {
    graph.map(|graph| format!(" by its graph {graph}")).unwrap_or_default()
}

impl ScoreError {
    /// Who must change what.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sample { source: TextError::TooLong(_) | TextError::TooManyBytes(_), .. } | Self::NoRoom { .. } => {
                ErrorKind::TooLong
            }
            Self::Sample {
                source: TextError::File { .. } | TextError::Config { .. } | TextError::Undecodable(_),
                ..
            }
            | Self::Panicked => ErrorKind::Internal,
            Self::NoSamples
            | Self::NoSample { .. }
            | Self::TokensForSeveral
            | Self::Aggregation(_)
            | Self::Transform(_)
            | Self::Unsuitable(_)
            | Self::NeedsMemory { .. }
            | Self::Head { source: HeadError::NoSteps | HeadError::NoTokens, .. }
            | Self::Aggregate { .. }
            | Self::Probe { .. }
            | Self::ScoresNothing { .. }
            | Self::EmbedsNothing { .. }
            | Self::WritesNothing { .. }
            | Self::Sample { .. } => ErrorKind::Invalid,
            Self::NotWritten(refusal) => match refusal {
                GenerationRefusal::TooLarge { .. } | GenerationRefusal::TooMany { .. } | GenerationRefusal::Empty => {
                    ErrorKind::Invalid
                }
                GenerationRefusal::Full(_) => ErrorKind::Overloaded,
                GenerationRefusal::Stopped => ErrorKind::Unavailable,
            },
            Self::Generate { source, .. } => match source {
                GenerateError::Stopped => ErrorKind::Unavailable,
                GenerateError::Panicked => ErrorKind::Internal,
                GenerateError::Runtime(_) | GenerateError::NotFinite => ErrorKind::Runtime,
            },
            Self::NoModel(NoModel::Unknown { .. }) => ErrorKind::NotFound,
            Self::NoModel(NoModel::OtherVersion { .. }) => ErrorKind::OtherVersion,
            Self::NoModel(
                NoModel::Loading { .. } | NoModel::Building { .. } | NoModel::Failed { .. } | NoModel::Unloaded { .. },
            )
            | Self::Stopped
            | Self::Refused(QueueRefusal::Stopped) => ErrorKind::Unavailable,
            Self::Refused(_) => ErrorKind::Overloaded,
            Self::Expired => ErrorKind::Deadline,
            Self::Runtime { .. } | Self::NotFinite { .. } | Self::Head { .. } | Self::Statistic { .. } => {
                ErrorKind::Runtime
            }
        }
    }

    /// The index of the sample that is at fault, if one is.
    #[must_use]
    pub fn sample(&self) -> Option<usize> {
        match self {
            Self::Head { index, .. } => *index,
            Self::NoSample { index, .. }
            | Self::Sample { index, .. }
            | Self::Probe { index, .. }
            | Self::NotFinite { index, .. }
            | Self::Aggregate { index, .. }
            | Self::Statistic { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// What is wrong with the sample, without its place.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Sample { source, .. } => source.to_string(),
            Self::Probe { source, .. } => source.to_string(),
            Self::Head { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// The same error where its sample is one of some that stand at `places` of the request.
    pub(super) fn among(mut self, places: &[usize]) -> Self {
        let index = match &mut self {
            Self::Aggregate { index, .. }
            | Self::Statistic { index, .. }
            | Self::NotFinite { index, .. }
            | Self::Sample { index, .. } => Some(index),
            Self::Head { index, .. } => index.as_mut(),
            _ => None,
        };
        if let Some(index) = index
            && let Some(place) = places.get(*index)
        {
            *index = *place;
        }
        self
    }

    /// When it's worth trying again, if the server can tell.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after(),
            Self::NoModel(NoModel::Loading { .. }) | Self::NotWritten(GenerationRefusal::Full(_)) => {
                Some(Duration::from_secs(1))
            }
            Self::NoModel(NoModel::Building { .. }) => Some(Duration::from_secs(30)),
            _ => None,
        }
    }
}

/// How a message begins that may be about one sample.
fn of_sample(index: Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!("sample {index}: "))
}
