//! What dialects are made of: a [`Call`] that knows model and rules, and the messages, documents, vectors and errors that
//! several of them have in common.

mod activation;
mod call;
mod choices;
mod error;
mod message;
mod ranking;
mod scores;
mod settings;
mod unread;
mod vector;

pub(crate) use activation::Activation;
pub(crate) use call::{Call, ModelField, RawCall};
pub(crate) use choices::{PromptForm, UrlChoices};
pub(crate) use error::{DetailBody, without_422, worth_a_retry};
pub(crate) use message::{ChatMessage, Parts, Prompt, conversation, messages};
pub(crate) use ranking::{Document, RankedDocument, Reranking};
pub(crate) use scores::{Scored, Scores};
pub use settings::DialectSettings;
pub(crate) use unread::{Body, KnownFields, Unread};
pub(crate) use vector::{Encoding, Vector, narrow};

use karat_engine::engine::Draft;
use karat_rules::domain::{ConversationError, Sample};

pub(crate) use crate::api::problem::invalid;

/// A sample, or what is wrong with the part of the body that it was made from.
pub(crate) fn sample(place: &str, index: usize, made: Result<Sample, ConversationError>) -> Draft {
    made.map_err(|error| format!("{place}[{index}]: {error}"))
}

/// Samples of rendered texts.
pub(crate) fn texts(place: &str, texts: Vec<String>) -> Vec<Draft> {
    texts.into_iter().enumerate().map(|(index, text)| sample(place, index, Sample::from_text(text))).collect()
}

/// The time in whole seconds since 1970, as OpenAI-style replies carry it.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}
