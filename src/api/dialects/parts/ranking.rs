//! Documents in the order of their relevance to a query, as every rerank protocol wants them.
//!
//! The query is the prompt and each document a response: a cross-encoder gets its sentence pair, a chat model a turn of
//! the user and one of the assistant.

use karat_engine::text::TextOptions;
use karat_rules::domain::Sample;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Activation, Call, ModelField, Scored, Scores, sample};
use crate::api::problem::Problem;

/// A document as text, or as an object that holds it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a document must be a string or an object with \"text\", and no image")]
pub(crate) enum Document {
    /// The text alone.
    Text(String),
    /// An object that holds the text.
    Object {
        /// The text.
        text: String,
        /// Refused: a document that is ranked is a text.
        #[serde(default, rename = "image")]
        #[schemars(skip)]
        _image: Option<Nothing>,
        /// Refused as well.
        #[serde(default, rename = "images")]
        #[schemars(skip)]
        _images: Option<Nothing>,
    },
}

/// Nothing at all: of what may not be sent.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum Nothing {}

impl Document {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { text, .. } => text,
        }
    }
}

/// What a rerank request asks, in whatever words.
#[derive(Debug)]
pub(crate) struct Reranking {
    /// What the body calls the documents.
    pub(crate) place: &'static str,
    pub(crate) query: String,
    pub(crate) documents: Vec<String>,
    pub(crate) model: Option<String>,
    pub(crate) text: TextOptions,
    /// What scores pass through, unless the URL says otherwise.
    pub(crate) activation: Activation,
    /// How many of the best are wanted; all where it isn't said.
    pub(crate) top: Option<usize>,
}

/// A document, its place in the request and its score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RankedDocument {
    pub(crate) index: usize,
    pub(crate) score: f64,
    pub(crate) text: String,
    /// How many of its tokens were cut.
    pub(crate) cut: usize,
}

impl Reranking {
    /// The best documents, best first, and the report that says so; ties keep the request's order.
    pub(crate) async fn rank(self, call: &Call<()>) -> Result<(Scores, Vec<RankedDocument>), Problem> {
        let documents = self.documents.iter().enumerate();
        let samples = documents.map(|(index, document)| {
            sample(self.place, index, Sample::from_prompt(self.query.clone(), document.clone()))
        });
        let report = call.score(ModelField::named(self.model.as_deref()), samples.collect(), self.text).await?;
        let activation = call.activation(self.activation).of(&report);
        let mut order: Vec<_> = report.results.iter().zip(self.documents).enumerate().collect();
        // Ranked before the activation, which may round different rewards to the same number. What wasn't scored goes
        // last: its number may lie on another scale.
        let rank = |scored: &Scored| (scored.refused.is_some(), std::cmp::Reverse(scored.reward));
        order.sort_by_key(|(_, (scored, _))| rank(scored));
        order.truncate(self.top.unwrap_or(usize::MAX));
        let ranked = order.into_iter().map(|(index, (scored, text))| RankedDocument {
            index,
            score: activation.apply(scored),
            text,
            cut: scored.cut.response_tokens,
        });
        let ranked = ranked.collect();
        Ok((report, ranked))
    }
}
