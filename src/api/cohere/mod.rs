//! Cohere's rerank: `POST /v1/rerank` and `POST /v2/rerank`, under `/cohere` alone.

mod dto;

use aide::{
    axum::{
        ApiRouter,
        routing::{ApiMethodRouter, post_with},
    },
    transform::TransformOperation,
};
use http::StatusCode;
use karat_engine::text::TextOptions;

use super::{
    AppState,
    dialect::{Activation, Call, Dialect, Document, Failure, ModelField, Reply, pairs, rank},
    problem::{Problem, ProblemType},
};
use dto::{ErrorBody, RerankBody, RerankReply};

/// The dialect of Cohere.
#[derive(Debug)]
pub(super) struct Cohere;

impl Dialect for Cohere {
    const NAME: &'static str = "cohere";
    type Error = ErrorBody;

    fn status(kind: ProblemType) -> StatusCode {
        match kind.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            other => other,
        }
    }

    fn error(problem: &Problem, _: StatusCode) -> ErrorBody {
        ErrorBody { message: problem.detail().to_owned() }
    }
}

pub(super) fn routes() -> ApiRouter<AppState> {
    let rerank = |version| -> ApiMethodRouter<AppState> { post_with(rerank, describe(version)) };
    ApiRouter::new().api_route("/v1/rerank", rerank("1")).api_route("/v2/rerank", rerank("2"))
}

fn describe(version: &'static str) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        operation
            .id(&format!("cohereRerankV{version}"))
            .tag("Cohere")
            .summary("Rank documents")
            .description("The relevance is the logistic function of the reward; `?activation=none` gives the reward.")
    }
}

async fn rerank(call: Call<Cohere, RerankBody>) -> Result<Reply<RerankReply>, Failure<Cohere>> {
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
