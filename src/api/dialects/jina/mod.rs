//! Jina's rerank: `POST /v1/rerank`, under `/jina` alone.

mod dto;

use std::num::NonZeroUsize;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, DetailBody, Document, KnownFields, Reranking},
};
use crate::api::{
    problem::{Problem, ProblemType},
    reply::Reply,
};
use dto::{RerankBody, RerankReply};

/// The dialect of Jina.
pub(super) static DIALECT: Dialect = Dialect {
    name: "jina",
    title: "Jina",
    paths: Paths::Prefixed,
    routes: &[Route::new("/v1/rerank", || post_with(rerank, describe))],
    fields: KnownFields {
        harmless: &["user"],
        advice: &[
            ("truncation", "add ?truncation=response_end to the URL"),
            ("raw_scores", "add ?activation=none to the URL"),
        ],
    },
    status: ProblemType::status,
    error: ErrorShape::of::<DetailBody>(),
};

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("jinaRerank")
        .summary("Rank documents")
        .description("The relevance is the logistic function of the reward; `?activation=none` gives the reward.")
}

async fn rerank(call: Call<RerankBody>) -> Result<Reply<RerankReply>, Problem> {
    let (call, body) = call.split();
    let asked = Reranking {
        place: "documents",
        query: body.query,
        documents: body.documents.into_iter().map(Document::into_text).collect(),
        model: body.model,
        text: TextOptions::default(),
        activation: Activation::Sigmoid,
        top: body.top_n.map(NonZeroUsize::get),
    };
    let (report, ranked) = asked.rank(&call).await?;
    let reply = RerankReply::new(&report, ranked, body.return_documents.unwrap_or(true));
    Ok(Reply::new(&report, reply))
}
