//! Request and response of Jina's rerank.

use std::num::NonZeroUsize;

use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::dialects::{
    parts::{Body, Document, RankedDocument, Scores, Unread},
    vllm::DocumentText,
};

/// A query and the documents to rank.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "JinaRerankBody")]
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
    /// Whether each document is sent back; by default yes.
    #[serde(default)]
    pub(super) return_documents: Option<bool>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unread: Unread,
}

/// The documents, best first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JinaRerankReply")]
pub(super) struct RerankReply {
    model: ModelName,
    usage: Usage,
    results: Vec<RerankResult>,
}

/// What the request cost.
#[derive(Debug, Serialize, JsonSchema)]
struct Usage {
    total_tokens: usize,
    prompt_tokens: usize,
}

/// One document.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "JinaRerankResult")]
struct RerankResult {
    /// Its place in the request.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentText>,
    relevance_score: f64,
}

impl RerankReply {
    pub(super) fn new(report: &Scores, ranked: Vec<RankedDocument>, returned: bool) -> Self {
        let tokens = report.usage.tokens;
        let ranked = ranked.into_iter();
        Self {
            model: report.model.clone(),
            usage: Usage { total_tokens: tokens, prompt_tokens: tokens },
            results: ranked
                .map(|ranked| RerankResult {
                    index: ranked.index,
                    document: returned.then_some(DocumentText { text: ranked.text }),
                    relevance_score: ranked.score,
                })
                .collect(),
        }
    }
}

impl Body for RerankBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
