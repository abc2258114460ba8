//! Cohere's rerank: `POST /v1/rerank` and `POST /v2/rerank`, under `/cohere` alone.

mod dto;

use std::num::NonZeroUsize;

use aide::{axum::routing::post_with, transform::TransformOperation};
use karat_engine::text::TextOptions;

use super::{
    dialect::{Dialect, ErrorShape, Paths, Route},
    parts::{Activation, Call, Document, KnownFields, RankedDocument, Reranking, Scores, invalid, without_422},
};
use crate::api::{
    problem::{Problem, cut},
    reply::Reply,
};
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
    fields: KnownFields {
        harmless: &["max_chunks_per_doc", "priority", "client_name"],
        advice: &[("raw_scores", "add ?activation=none to the URL")],
    },
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
    if body.rank_fields.is_some_and(|fields| fields != ["text"]) {
        return Err(invalid(
            "rank_fields: documents are ranked by their text; write what else counts into it, and leave the field out",
        ));
    }
    let asked = Reranking {
        place: "documents",
        query: body.query,
        documents: body.documents.into_iter().map(Document::into_text).collect(),
        model: body.model,
        text: TextOptions { max_response_tokens: body.max_tokens_per_doc, ..TextOptions::default() },
        activation: Activation::Sigmoid,
        top: body.top_n.map(NonZeroUsize::get),
    };
    let (report, ranked) = asked.rank(&call).await?;
    let warnings = warnings(&report, &ranked);
    let reply = RerankReply::new(&call.id, ranked, body.return_documents, report.usage, warnings);
    Ok(Reply::new(&report, reply))
}

/// What was done to documents that the client would not expect, in their order.
fn warnings(scores: &Scores, ranked: &[RankedDocument]) -> Vec<String> {
    let mut by_place: Vec<&RankedDocument> = ranked.iter().collect();
    by_place.sort_by_key(|ranked| ranked.index);
    let warnings = by_place.into_iter().filter_map(|ranked| {
        let index = ranked.index;
        match &scores.results[index].refused {
            Some(reason) => Some(format!("documents[{index}] was not scored: {}", cut(reason.clone()))),
            None => (ranked.cut > 0).then(|| format!("documents[{index}] was cut by {} tokens at its end", ranked.cut)),
        }
    });
    warnings.collect()
}
