//! Cohere's rerank: `POST /v1/rerank` and `POST /v2/rerank`, under `/cohere` alone.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, Document, ModelField, Reply, pairs, rank, without_422},
};
use crate::api::problem::Problem;
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
    let activation = call.activation(Activation::Sigmoid);
    let documents: Vec<String> = body.documents.into_iter().map(Document::into_text).collect();
    let samples = pairs("documents", &body.query, &documents)?;
    let report = call.score(ModelField::named(body.model.as_deref()), samples, TextOptions::default()).await?;
    let ranked = rank(&report, activation, body.top_n.map(std::num::NonZeroUsize::get));
    let returned = body.return_documents.then_some(documents.as_slice());
    let reply = RerankReply::new(&call.id, &ranked, returned, report.usage);
    Ok(Reply::new(&report, reply))
}
