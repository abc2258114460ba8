//! Documents in the order of their relevance to a query, as every rerank protocol wants them.
//!
//! The query is the prompt and each document a response: a cross-encoder gets its sentence pair, a chat model a turn of
//! the user and one of the assistant.

use karat_engine::engine::ScoreReport;
use karat_rules::domain::{Reward, Sample};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Activation, sample};
use crate::api::problem::Problem;

/// A document as text, or as an object that holds it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a document must be a string or an object with \"text\"")]
pub(crate) enum Document {
    /// The text alone.
    Text(String),
    /// An object that holds the text.
    Object {
        /// The text.
        text: String,
    },
}

impl Document {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

/// A document's place in the request and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RankedDocument {
    pub(crate) index: usize,
    pub(crate) score: f64,
}

/// One sample for each document.
pub(crate) fn pairs(place: &str, query: &str, documents: &[String]) -> Result<Vec<Sample>, Problem> {
    let documents = documents.iter().enumerate();
    documents
        .map(|(index, document)| sample(place, index, Sample::from_prompt(query.to_owned(), document.clone())))
        .collect()
}

/// The best `top` documents, best first; ties keep the request's order.
pub(crate) fn rank(report: &ScoreReport, activation: Activation, top: Option<usize>) -> Vec<RankedDocument> {
    let mut order: Vec<(usize, Reward)> =
        report.results.iter().enumerate().map(|(index, result)| (index, result.reward)).collect();
    // Ranked before the activation, which may round different rewards to the same number.
    order.sort_by(|(_, one), (_, other)| other.cmp(one));
    order.truncate(top.unwrap_or(usize::MAX));
    let ranked = order.into_iter();
    ranked.map(|(index, reward)| RankedDocument { index, score: activation.apply(reward.get()) }).collect()
}
