//! Jina's rerank: `POST /v1/rerank`, under `/jina` alone.

mod dto;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use http::StatusCode;
use karat_engine::text::TextOptions;

use super::{
    AppState,
    dialect::{Activation, Call, DetailBody, Dialect, Document, Failure, ModelField, Reply, detail, pairs, rank},
    problem::{Problem, ProblemType},
};
use dto::{RerankBody, RerankReply};

/// The dialect of Jina.
#[derive(Debug)]
pub(super) struct Jina;

impl Dialect for Jina {
    const NAME: &'static str = "jina";
    type Error = DetailBody;

    fn status(kind: ProblemType) -> StatusCode {
        kind.status()
    }

    fn error(problem: &Problem, _: StatusCode) -> DetailBody {
        detail(problem)
    }
}

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/rerank", post_with(rerank, describe))
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("jinaRerank")
        .tag("Jina")
        .summary("Rank documents")
        .description("The relevance is the logistic function of the reward; `?activation=none` gives the reward.")
}

async fn rerank(call: Call<Jina, RerankBody>) -> Result<Reply<RerankReply>, Failure<Jina>> {
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
