//! `POST /rerank`: documents in the order of their relevance.

use aide::transform::TransformOperation;
use karat_engine::text::TextOptions;
use karat_rules::domain::ModelName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Common, UsageBody, response_limit};
use crate::api::{
    dialects::parts::{Body, Call, Document, Reranking, Unread},
    problem::Problem,
    reply::Reply,
    reply_id::ReplyKind,
};

/// A query and the documents to rank.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "VllmRerankBody")]
pub(crate) struct RerankBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    model: Option<String>,
    /// What is asked.
    query: String,
    /// What may answer it.
    documents: Vec<Document>,
    /// How many of the best to return; 0 for all.
    #[serde(default)]
    top_n: Option<usize>,
    /// Cut longer documents at their end to this many tokens; 0 for none.
    #[serde(default)]
    max_tokens_per_doc: Option<usize>,
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// The documents, best first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VllmRerankReply")]
pub(crate) struct RerankReply {
    id: String,
    model: ModelName,
    usage: UsageBody,
    results: Vec<RerankResult>,
}

/// One document.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VllmRerankResult")]
struct RerankResult {
    /// Its place in the request.
    index: usize,
    document: DocumentText,
    /// The reward, through the logistic function unless the request says otherwise.
    relevance_score: f64,
}

/// A document's text.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct DocumentText {
    pub(crate) text: String,
}

pub(super) fn describe(version: &'static str) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| operation.id(&format!("vllmRerank{version}")).summary("Rank documents")
}

pub(super) async fn rerank(call: Call<RerankBody>) -> Result<Reply<RerankReply>, Problem> {
    let (call, body) = call.split();
    let asked = Reranking {
        place: "documents",
        query: body.query,
        documents: body.documents.into_iter().map(Document::into_text).collect(),
        model: body.model,
        text: TextOptions { max_response_tokens: response_limit(body.max_tokens_per_doc), ..body.common.text()? },
        activation: body.common.activation(),
        top: body.top_n.filter(|top| *top > 0),
    };
    let (report, ranked) = asked.rank(&call).await?;
    let results = ranked.into_iter().map(|ranked| RerankResult {
        index: ranked.index,
        document: DocumentText { text: ranked.text },
        relevance_score: ranked.score,
    });
    let reply = RerankReply {
        id: ReplyKind::Rerank.id(&call.id),
        model: report.model.clone(),
        usage: UsageBody::new(report.usage),
        results: results.collect(),
    };
    Ok(Reply::new(&report, reply))
}

impl Body for RerankBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
