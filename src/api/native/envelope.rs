//! What every scoring route says around its own answer: who scored, and what it cost.

use karat_engine::engine::{SampleReport, ScoreReport, Usage};
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::result::UsageBody;
use crate::api::{problem::Problem, reply::Reply};

/// A route's own answer among what all routes say.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}", extend("description" = description::<T>()))]
pub(super) struct Envelope<T> {
    /// The request's id, as in the `X-Request-Id` header.
    id: String,
    /// The model that scored.
    model: ModelName,
    /// Exactly which one: a digest over its manifest, graphs and tokenizer.
    model_version: ModelVersion,
    #[serde(flatten)]
    own: T,
    /// What it cost.
    usage: UsageBody,
}

impl<T> Envelope<T> {
    /// The reply to a request of which nothing was scored.
    pub(super) fn unscored(id: String, model: ModelName, model_version: ModelVersion, own: T) -> Reply<Self> {
        Reply::unscored(Self { id, model, model_version, own, usage: Usage::default().into() })
    }

    /// The reply to a request, with what the route makes of the samples' reports.
    pub(super) fn reply(
        id: String,
        report: ScoreReport,
        own: impl FnOnce(Vec<SampleReport>) -> Result<T, Problem>,
    ) -> Result<Reply<Self>, Problem> {
        let ScoreReport { model, version, results, usage, timings, .. } = report;
        let body = Self { id, model, model_version: version, own: own(results)?, usage: usage.into() };
        Ok(Reply::timed(&timings, body))
    }
}

/// The route's answer is documented as a whole, under the words for what is its own.
fn description<T: JsonSchema>() -> Option<Value> {
    T::json_schema(&mut SchemaGenerator::default()).get("description").cloned()
}

/// What the route makes of each report and its place in the request.
pub(super) fn each<R>(
    reports: Vec<SampleReport>,
    result: impl FnMut((usize, SampleReport)) -> Result<R, Problem>,
) -> Result<Vec<R>, Problem> {
    reports.into_iter().enumerate().map(result).collect()
}
