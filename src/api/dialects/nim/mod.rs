//! NVIDIA's reranking microservices (NIM): `POST /v1/ranking`.

mod dto;

use aide::{axum::routing::post_with, transform::TransformOperation};

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, DetailBody, KnownFields, Reranking},
};
use crate::api::{
    problem::{Problem, ProblemType},
    reply::Reply,
};
use dto::{RankingBody, RankingReply};

/// The dialect of NIM.
pub(super) static DIALECT: Dialect = Dialect {
    name: "nim",
    title: "NVIDIA NIM",
    paths: Paths::Expected,
    routes: &[Route::new("/v1/ranking", || post_with(ranking, describe))],
    fields: KnownFields { harmless: &[], advice: &[] },
    status: ProblemType::status,
    error: ErrorShape::of::<DetailBody>(),
};

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("nimRanking").summary("Rank passages").description(
        "Each passage's `logit` is its reward as it is, best first; `?activation=sigmoid` sends it through the logistic \
         function.",
    )
}

async fn ranking(call: Call<RankingBody>) -> Result<Reply<RankingReply>, Problem> {
    let (call, body) = call.split();
    body.check_parts()?;
    let asked = Reranking {
        place: "passages",
        text: body.text(),
        query: body.query.into_text(),
        documents: body.passages.into_iter().map(dto::Text::into_text).collect(),
        model: body.model,
        activation: Activation::None,
        top: None,
    };
    let (report, ranked) = asked.rank(&call).await?;
    let reply = RankingReply::new(&report, &ranked);
    Ok(Reply::new(&report, reply))
}
