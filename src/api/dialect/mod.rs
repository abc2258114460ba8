//! What all dialects share: a [`Call`] that knows model and rules, a [`Failure`] in the dialect's own shape, a
//! [`Reply`] that says which model scored.
//!
//! A dialect is a type that implements [`Dialect`], request and response types, and handlers that turn the one into
//! samples and the report into the other. Its routes stand at the paths that its clients expect, at the same paths under
//! its name, and at all of these under `/m/{model}`; [`super::contested`] decides where two dialects want one path.

mod activation;
mod call;
mod choices;
mod failure;
mod message;
mod ranking;
mod reply;
mod settings;

pub(crate) use activation::Activation;
pub(crate) use call::{Call, ModelField, RawCall};
pub(crate) use choices::{PromptForm, UrlChoices};
pub(crate) use failure::{DetailBody, Dialect, Failure, detail, worth_a_retry};
pub(crate) use message::{ChatMessage, Prompt, conversation, messages};
pub(crate) use ranking::{Document, RankedDocument, pairs, rank};
pub(crate) use reply::Reply;
pub use settings::DialectSettings;

use karat_rules::domain::{ConversationError, Sample};

use crate::api::problem::{Problem, ProblemType};

/// A sample, or the problem with the part of the body that it was made from.
pub(crate) fn sample(place: &str, index: usize, made: Result<Sample, ConversationError>) -> Result<Sample, Problem> {
    made.map_err(|error| Problem::new(ProblemType::InvalidRequest, format!("{place}[{index}]: {error}")).at(index))
}

/// Samples of rendered texts.
pub(crate) fn texts(place: &str, texts: Vec<String>) -> Result<Vec<Sample>, Problem> {
    texts.into_iter().enumerate().map(|(index, text)| sample(place, index, Sample::from_text(text))).collect()
}

/// A problem with what a body says.
pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemType::InvalidRequest, detail)
}

/// The time in whole seconds since 1970, as OpenAI-style replies carry it.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}
