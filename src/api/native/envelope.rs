//! What every scoring route says around its own answer: who scored, and what it cost.

use karat_engine::engine::{Refusal, SampleReport, ScoreReport, Usage};
use karat_rules::domain::{ModelName, ModelVersion};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::result::{Outcome, UsageBody};
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
    /// How many samples were refused and not scored; left out when none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
    /// What it cost.
    usage: UsageBody,
}

impl<T> Envelope<T> {
    /// The reply to a request of which nothing was scored.
    pub(super) fn unscored(id: String, model: ModelName, model_version: ModelVersion, own: T) -> Reply<Self> {
        Reply::unscored(Self { id, model, model_version, own, refused: None, usage: Usage::default().into() })
    }

    /// The reply to a request, with what the route makes of the samples' reports.
    pub(super) fn reply(
        id: String,
        report: ScoreReport,
        own: impl FnOnce(Vec<Result<SampleReport, Refusal>>) -> Result<T, Problem>,
    ) -> Result<Reply<Self>, Problem> {
        let (model, model_version) = (report.model.clone(), report.version.clone());
        let (usage, timings, refused) = (report.usage, report.timings, report.refused.len());
        let own = own(report.into_outcomes())?;
        let refused = (refused > 0).then_some(refused);
        let body = Self { id, model, model_version, own, refused, usage: usage.into() };
        Ok(Reply::timed(&timings, body))
    }
}

/// The route's answer is documented as a whole, under the words for what is its own.
fn description<T: JsonSchema>() -> Option<Value> {
    T::json_schema(&mut SchemaGenerator::default()).get("description").cloned()
}

/// What the route makes of each report and its place in the request, and of each sample that was refused.
pub(super) fn each<R>(
    outcomes: Vec<Result<SampleReport, Refusal>>,
    mut result: impl FnMut((usize, SampleReport)) -> Result<R, Problem>,
) -> Result<Vec<Outcome<R>>, Problem> {
    let outcomes = outcomes.into_iter().enumerate();
    let placed = outcomes.map(|(index, outcome)| match outcome {
        Ok(report) => result((index, report)).map(Outcome::Scored),
        Err(refusal) => Ok(Outcome::refused(refusal)),
    });
    placed.collect()
}
