//! Request and response of Cohere's rerank.

use std::num::NonZeroUsize;

use http::StatusCode;
use karat_engine::engine::Usage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    dialects::{
        dialect,
        parts::{Body, Document, RankedDocument, Unread},
    },
    problem::Problem,
};

/// The body of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CohereError")]
pub(crate) struct ErrorBody {
    /// What is wrong and what to change.
    message: String,
}

impl dialect::ErrorBody for ErrorBody {
    fn new(problem: &Problem, _: StatusCode) -> Self {
        Self { message: problem.detail().to_owned() }
    }
}

/// A query and the documents to rank.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "CohereRerankBody")]
pub(super) struct RerankBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    pub(super) model: Option<String>,
    /// What is asked.
    pub(super) query: String,
    /// What may answer it.
    pub(super) documents: Vec<Document>,
    /// How many of the best to return; all by default.
    #[serde(default)]
    pub(super) top_n: Option<NonZeroUsize>,
    /// Whether each document is sent back.
    #[serde(default)]
    pub(super) return_documents: bool,
    /// Cut longer documents at their end to this many tokens; `meta.warnings` says which were. Without it they are handled
    /// as the model's manifest says.
    #[serde(default)]
    pub(super) max_tokens_per_doc: Option<NonZeroUsize>,
    /// The fields of documents by which they are ranked: `text` alone is.
    #[serde(default)]
    pub(super) rank_fields: Option<Vec<String>>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// The documents, best first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CohereRerankReply")]
pub(super) struct RerankReply {
    id: String,
    results: Vec<RerankResult>,
    meta: Meta,
}

/// One document.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CohereRerankResult")]
struct RerankResult {
    /// Its place in the request.
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<ReturnedDocument>,
}

/// A document that was asked for.
#[derive(Debug, Serialize, JsonSchema)]
struct ReturnedDocument {
    text: String,
}

/// What the request cost.
#[derive(Debug, Serialize, JsonSchema)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
    tokens: Tokens,
    /// Which documents were cut or refused; left out when none was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Which version of the protocol this is.
#[derive(Debug, Serialize, JsonSchema)]
struct ApiVersion {
    version: &'static str,
}

/// One search a request.
#[derive(Debug, Serialize, JsonSchema)]
struct BilledUnits {
    search_units: usize,
}

/// The tokens of all pairs.
#[derive(Debug, Serialize, JsonSchema)]
struct Tokens {
    input_tokens: usize,
    output_tokens: usize,
}

impl RerankReply {
    pub(super) fn new(
        id: &str,
        ranked: Vec<RankedDocument>,
        returned: bool,
        usage: Usage,
        warnings: Vec<String>,
    ) -> Self {
        let ranked = ranked.into_iter();
        Self {
            id: id.to_owned(),
            results: ranked
                .map(|ranked| RerankResult {
                    index: ranked.index,
                    relevance_score: ranked.score,
                    document: returned.then_some(ReturnedDocument { text: ranked.text }),
                })
                .collect(),
            meta: Meta {
                api_version: ApiVersion { version: "2" },
                billed_units: BilledUnits { search_units: 1 },
                tokens: Tokens { input_tokens: usage.tokens, output_tokens: 0 },
                warnings,
            },
        }
    }
}

impl Body for RerankBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
