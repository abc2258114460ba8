//! Jina's rerank: `POST /v1/rerank`, under `/jina` alone.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, DetailBody, Document, ModelField, Reply, pairs, rank},
};
use crate::api::problem::{Problem, ProblemType};
use dto::{RerankBody, RerankReply};

/// The dialect of Jina.
pub(super) static DIALECT: Dialect = Dialect {
    name: "jina",
    title: "Jina",
    paths: Paths::Prefixed,
    routes: &[Route::new("/v1/rerank", || post_with(rerank, describe))],
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
    let activation = call.activation(Activation::Sigmoid);
    let documents: Vec<String> = body.documents.into_iter().map(Document::into_text).collect();
    let samples = pairs("documents", &body.query, &documents)?;
    let report = call.score(ModelField::named(body.model.as_deref()), samples, TextOptions::default()).await?;
    let ranked = rank(&report, activation, body.top_n.map(std::num::NonZeroUsize::get));
    let returned = body.return_documents.unwrap_or(true).then_some(documents.as_slice());
    let reply = RerankReply::new(&report, &ranked, returned);
    Ok(Reply::new(&report, reply))
}
