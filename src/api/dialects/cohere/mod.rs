//! Cohere's rerank: `POST /v1/rerank` and `POST /v2/rerank`, under `/cohere` alone.

mod dto;

use std::num::NonZeroUsize;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, Document, Reranking, without_422},
};
use crate::api::{problem::Problem, reply::Reply};
use dto::{ErrorBody, RerankBody, RerankReply};

/// The dialect of Cohere.
pub(super) static DIALECT: Dialect = Dialect {
    name: "cohere",
    title: "Cohere",
    paths: Paths::Prefixed,
    routes: &[
        Route::new("/v1/rerank", || post_with(rerank, describe("1"))),
        Route::new("/v2/rerank", || post_with(rerank, describe("2"))),
    ],
    status: |kind| without_422(kind.status()),
    error: ErrorShape::of::<ErrorBody>(),
};

fn describe(version: &'static str) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        operation
            .id(&format!("cohereRerankV{version}"))
            .summary("Rank documents")
            .description("The relevance is the logistic function of the reward; `?activation=none` gives the reward.")
    }
}

async fn rerank(call: Call<RerankBody>) -> Result<Reply<RerankReply>, Problem> {
    let (call, body) = call.split();
    body.unread.check(&["max_chunks_per_doc", "priority"])?;
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
    let reply = RerankReply::new(&call.id, ranked, body.return_documents, report.usage);
    Ok(Reply::new(&report, reply))
}
