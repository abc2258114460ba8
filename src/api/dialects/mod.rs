//! The dialects of other servers: a folder each, and one [table](TABLE).
//!
//! A dialect is a value, its folder's `DIALECT`: its name, its routes, which bodies it claims where others want a path
//! too, and how its errors look. Its handlers turn the bodies of its clients into samples and reports into the bodies that
//! they expect, of the [parts] that dialects have in common, and fail with plain problems. All else follows from the
//! table: [where routes stand](routes), [who answers on a shared path](shared_paths), the OpenAPI document, and what
//! `--shed` takes. A new dialect is a folder, its `mod` line and its row.

mod cohere;
mod dialect;
mod jina;
mod kserve;
mod llama_factory;
mod nemo_gym;
mod nim;
mod openrlhf;
mod parts;
mod routes;
mod sglang;
mod shared_paths;
mod slime;
mod tei;
mod vllm;

use dialect::Dialect;

pub(super) use kserve::grpc_routes;
pub use parts::DialectSettings;
pub(super) use parts::Scores;
pub(super) use routes::{documented, tell, tell_any, undocumented};
pub(super) use shared_paths::SharedPath;

/// Every dialect. On a path that several claim, the first whose body it is answers.
static TABLE: [&Dialect; 11] = [
    &openrlhf::DIALECT,
    &vllm::DIALECT,
    &sglang::DIALECT,
    &llama_factory::DIALECT,
    &slime::DIALECT,
    &nemo_gym::DIALECT,
    &tei::DIALECT,
    &cohere::DIALECT,
    &jina::DIALECT,
    &nim::DIALECT,
    &kserve::DIALECT,
];

/// The names of all dialects, which are also the prefixes of their routes.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|dialect| dialect.name)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::problem::{Problem, ProblemType};

    /// The status of each kind of problem, in the order of [`SHAPES`].
    const STATUSES: [(ProblemType, [u16; 11]); 17] = [
        (ProblemType::MalformedJson, [400, 400, 400, 400, 400, 400, 422, 400, 400, 400, 400]),
        (ProblemType::BodyIncomplete, [400, 400, 400, 400, 400, 400, 422, 400, 400, 400, 400]),
        (ProblemType::InvalidRequest, [422, 400, 400, 422, 422, 422, 422, 400, 422, 422, 400]),
        (ProblemType::NoInputs, [422, 400, 400, 400, 422, 422, 400, 400, 422, 422, 400]),
        (ProblemType::TooLong, [422, 400, 400, 422, 422, 422, 422, 400, 422, 422, 400]),
        (ProblemType::BodyTooLarge, [413, 413, 413, 413, 413, 413, 413, 413, 413, 413, 413]),
        (ProblemType::BodyTooSlow, [408, 408, 408, 408, 408, 408, 408, 408, 408, 408, 408]),
        (ProblemType::UnknownModel, [404, 404, 404, 404, 404, 404, 422, 404, 404, 404, 404]),
        (ProblemType::NoKey, [401; 11]),
        (ProblemType::KeyForbids, [403; 11]),
        (ProblemType::OutOfTokens, [503, 503, 503, 503, 503, 503, 429, 429, 429, 429, 503]),
        (ProblemType::ModelUnavailable, [503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503]),
        (ProblemType::Overloaded, [503, 503, 503, 503, 503, 503, 429, 429, 429, 429, 503]),
        (ProblemType::DeadlinePassed, [504, 504, 504, 504, 504, 504, 504, 504, 504, 504, 504]),
        (ProblemType::StateFull, [507; 11]),
        (ProblemType::ModelFailed, [500, 500, 500, 500, 500, 500, 424, 500, 500, 500, 500]),
        (ProblemType::Internal, [500, 500, 500, 500, 500, 500, 424, 500, 500, 500, 500]),
    ];

    /// The body of a dialect's errors.
    enum Shape {
        Detail,
        OpenAi,
        Tei,
        Message,
        Error,
    }

    const SHAPES: [(&str, Shape); 11] = [
        ("openrlhf", Shape::Detail),
        ("vllm", Shape::OpenAi),
        ("sglang", Shape::OpenAi),
        ("llama-factory", Shape::Detail),
        ("slime", Shape::Detail),
        ("nemo-gym", Shape::Detail),
        ("tei", Shape::Tei),
        ("cohere", Shape::Message),
        ("jina", Shape::Detail),
        ("nim", Shape::Detail),
        ("kserve", Shape::Error),
    ];

    #[test]
    fn every_pages_table_has_the_fields_that_are_harmless() {
        for dialect in TABLE {
            let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dialects/");
            let page = std::fs::read_to_string(format!("{page}{}.md", dialect.name)).unwrap();
            for field in dialect.fields.harmless {
                assert!(page.contains(&format!("`{field}`")), "{}.md doesn't name {field}", dialect.name);
            }
        }
    }

    async fn render(dialect: &Dialect, kind: ProblemType) -> (u16, Value) {
        let response = dialect.tell(&Problem::new(kind, "change this"));
        assert_eq!(response.headers()["content-type"], "application/json");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 10).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_problem_has_every_dialects_status_and_shape() {
        assert_eq!(TABLE.map(|dialect| dialect.name), SHAPES.map(|(name, _)| name));
        for (kind, statuses) in STATUSES {
            for ((dialect, (name, shape)), expected) in TABLE.iter().zip(SHAPES).zip(statuses) {
                let (status, body) = render(dialect, kind).await;
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
                            (ProblemType::DeadlinePassed, _) | (_, 424 | 507) => "Backend",
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
