//! Where the dialects' routes stand: at the paths that their clients expect, at the same paths under each dialect's name,
//! and at all of these under `/m/{model}`.
//!
//! The OpenAPI document describes each route once, under its dialect's name.

use aide::axum::ApiRouter;
use axum::Router;

use super::{
    AppState,
    cohere::{self, Cohere},
    contested,
    dialect::Dialect,
    jina::{self, Jina},
    kserve::{self, Kserve},
    llama_factory::{self, LlamaFactory},
    nemo_gym::{self, NemoGym},
    openrlhf::{self, OpenRlhf},
    sglang::{self, Sglang},
    slime::{self, Slime},
    tei::{self, Tei},
    vllm::{self, Vllm},
};

/// The names of all dialects, which are also the prefixes of their routes.
pub const DIALECTS: [&str; 10] = [
    OpenRlhf::NAME,
    Vllm::NAME,
    Sglang::NAME,
    LlamaFactory::NAME,
    Slime::NAME,
    NemoGym::NAME,
    Tei::NAME,
    Cohere::NAME,
    Jina::NAME,
    Kserve::NAME,
];

/// Every dialect's routes under its name.
pub(super) fn documented_routes() -> ApiRouter<AppState> {
    prefixed_routes().merge(under(Kserve::NAME, kserve::routes()))
}

fn under(name: &str, routes: ApiRouter<AppState>) -> ApiRouter<AppState> {
    ApiRouter::new().nest(&format!("/{name}"), routes)
}

/// The routes of all dialects whose paths don't name a model themselves, under their names.
fn prefixed_routes() -> ApiRouter<AppState> {
    ApiRouter::new()
        .merge(under(OpenRlhf::NAME, openrlhf::routes()))
        .merge(under(Vllm::NAME, vllm::own_routes().merge(vllm::contested_routes())))
        .merge(under(Sglang::NAME, sglang::own_routes().merge(sglang::contested_routes())))
        .merge(under(LlamaFactory::NAME, llama_factory::routes()))
        .merge(under(Slime::NAME, slime::routes()))
        .merge(under(NemoGym::NAME, nemo_gym::routes()))
        .merge(under(Tei::NAME, tei::own_routes().merge(tei::contested_routes())))
        .merge(under(Cohere::NAME, cohere::routes()))
        .merge(under(Jina::NAME, jina::routes()))
}

/// The routes without a prefix, and all routes under a model's name.
pub(super) fn other_routes() -> Router<AppState> {
    let of_a_model = bare_routes().merge(vllm::score_route()).merge(Router::from(prefixed_routes()));
    bare_routes().merge(Router::from(kserve::routes())).nest("/m/{model}", of_a_model)
}

/// The paths that clients expect. slime's, Cohere's and Jina's routes have none of their own.
fn bare_routes() -> Router<AppState> {
    let own = ApiRouter::new()
        .merge(openrlhf::routes())
        .merge(vllm::own_routes())
        .merge(sglang::own_routes())
        .merge(llama_factory::routes())
        .merge(nemo_gym::routes())
        .merge(tei::own_routes());
    Router::from(own).merge(contested::routes())
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, response::IntoResponse};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{
        dialect::Failure,
        problem::{Problem, ProblemType},
    };

    /// The status of each kind of problem, in the order of [`SHAPES`].
    const STATUSES: [(ProblemType, [u16; 10]); 12] = [
        (ProblemType::MalformedJson, [400, 400, 400, 400, 400, 400, 422, 400, 400, 400]),
        (ProblemType::InvalidRequest, [422, 400, 400, 422, 422, 422, 422, 400, 422, 400]),
        (ProblemType::NoInputs, [422, 400, 400, 400, 422, 422, 400, 400, 422, 400]),
        (ProblemType::TooLong, [422, 400, 400, 422, 422, 422, 422, 400, 422, 400]),
        (ProblemType::BodyTooLarge, [413, 413, 413, 413, 413, 413, 413, 413, 413, 413]),
        (ProblemType::BodyTooSlow, [408, 408, 408, 408, 408, 408, 408, 408, 408, 408]),
        (ProblemType::UnknownModel, [404, 404, 404, 404, 404, 404, 422, 404, 404, 404]),
        (ProblemType::ModelUnavailable, [503, 503, 503, 503, 503, 503, 503, 503, 503, 503]),
        (ProblemType::Overloaded, [503, 503, 503, 503, 503, 503, 429, 429, 429, 503]),
        (ProblemType::DeadlinePassed, [504, 504, 504, 504, 504, 504, 504, 504, 504, 504]),
        (ProblemType::ModelFailed, [500, 500, 500, 500, 500, 500, 424, 500, 500, 500]),
        (ProblemType::Internal, [500, 500, 500, 500, 500, 500, 424, 500, 500, 500]),
    ];

    /// The body of a dialect's errors.
    enum Shape {
        Detail,
        OpenAi,
        Tei,
        Message,
        Error,
    }

    const SHAPES: [(&str, Shape); 10] = [
        (OpenRlhf::NAME, Shape::Detail),
        (Vllm::NAME, Shape::OpenAi),
        (Sglang::NAME, Shape::OpenAi),
        (LlamaFactory::NAME, Shape::Detail),
        (Slime::NAME, Shape::Detail),
        (NemoGym::NAME, Shape::Detail),
        (Tei::NAME, Shape::Tei),
        (Cohere::NAME, Shape::Message),
        (Jina::NAME, Shape::Detail),
        (Kserve::NAME, Shape::Error),
    ];

    async fn render<D: Dialect>(kind: ProblemType) -> (u16, Value) {
        let response = Failure::<D>::from(Problem::new(kind, "change this")).into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 10).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_problem_has_every_dialects_status_and_shape() {
        assert_eq!(DIALECTS, SHAPES.map(|(name, _)| name));
        for (kind, statuses) in STATUSES {
            let rendered = [
                render::<OpenRlhf>(kind).await,
                render::<Vllm>(kind).await,
                render::<Sglang>(kind).await,
                render::<LlamaFactory>(kind).await,
                render::<Slime>(kind).await,
                render::<NemoGym>(kind).await,
                render::<Tei>(kind).await,
                render::<Cohere>(kind).await,
                render::<Jina>(kind).await,
                render::<Kserve>(kind).await,
            ];
            for (((status, body), (name, shape)), expected) in rendered.into_iter().zip(SHAPES).zip(statuses) {
                assert_eq!(status, expected, "{name} {kind:?}");
                let shaped = match shape {
                    Shape::Detail => json!({"detail": "change this"}),
                    Shape::OpenAi => {
                        let error = &body["error"];
                        assert!(error["type"].as_str().is_some_and(|word| word.ends_with("Error")), "{body}");
                        json!({"error": {"message": "change this", "type": error["type"], "param": null, "code": status}})
                    }
                    Shape::Tei => {
                        let word = match (kind, status) {
                            (ProblemType::NoInputs, _) => "Empty",
                            (ProblemType::DeadlinePassed, _) | (_, 424) => "Backend",
                            (_, 429) => "Overloaded",
                            (_, 503) => "Unhealthy",
                            _ => "Validation",
                        };
                        json!({"error": "change this", "error_type": word})
                    }
                    Shape::Error => json!({"error": "change this"}),
                    Shape::Message => json!({"message": "change this"}),
                };
                assert_eq!(body, shaped, "{name} {kind:?}");
            }
        }
    }
}
