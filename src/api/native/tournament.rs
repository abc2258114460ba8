//! `POST /v1/tournament`: candidates for one prompt, each compared with each by a judge of pairs.

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use karat_rules::{
    domain::{Message, Pair, Sample},
    metrics::{Standing, Tournament},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::{Call, OwnBody},
    envelope::Envelope,
    request::turns,
    turn::optional_texts,
};
use crate::api::{
    AppState,
    problem::{Problem, invalid},
    reply::Reply,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/tournament", post_with(tournament, describe))
}

/// Candidates for one prompt.
#[derive(Debug, Deserialize, JsonSchema)]
struct TournamentBody {
    /// What was asked, as a single turn.
    #[serde(default)]
    prompt: Option<String>,
    /// What was said before the response, oldest first; instead of `prompt`.
    #[serde(default, deserialize_with = "optional_texts")]
    messages: Option<Vec<Message>>,
    /// The responses, at least two. Each is compared with each, which makes half as many comparisons as their square.
    #[schemars(length(min = 2))]
    candidates: Vec<String>,
}

impl OwnBody for TournamentBody {
    fn inputs(&self) -> usize {
        let count = self.candidates.len();
        count.saturating_mul(count.saturating_sub(1)) / 2
    }
}

/// How the candidates stand to each other.
#[derive(Debug, Serialize, JsonSchema)]
struct TournamentResponse {
    /// For each candidate, the probability that it is better than each; 0.5 over itself.
    preferences: Vec<Vec<f64>>,
    #[serde(flatten)]
    standing: Standing,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("tournament").tag("Scoring").summary("Compare candidates pair by pair").description(
        "For models that judge pairs. Tells win rates, Copeland scores and every circle of preferences: where a is better \
         than b, b than c and c than a, no order is made up.",
    )
}

async fn tournament(call: Call<TournamentBody>) -> Result<Reply<Envelope<TournamentResponse>>, Problem> {
    let Call { state, id, run, body, options } = call;
    let TournamentBody { prompt, messages, candidates } = body;
    if !state.engine.model(&options.model_name()?)?.judges_pairs() {
        return Err(invalid(
            "this model scores each response by itself, which always makes an order; choose one that judges pairs, or use \
             POST /v1/best-of-n",
        ));
    }
    if candidates.len() < 2 {
        return Err(invalid("send at least two candidates"));
    }
    let turns = turns(prompt, messages).map_err(invalid)?;
    let mut samples = Vec::new();
    for (index, first) in candidates.iter().enumerate() {
        for second in &candidates[index + 1..] {
            let pair = Pair::new(turns.clone(), first.clone(), second.clone());
            samples.push(Sample::Pair(pair.map_err(|error| invalid(format!("candidates: {error}")))?));
        }
    }
    let request = options.into_whole_request(samples.into_iter().map(Ok).collect())?;
    let report = state.score(run.as_ref(), &id, request).await?;
    let count = candidates.len();
    Envelope::reply(id, report, |reports| {
        // There is a report for each pair, in their order.
        let pairs = (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second)));
        let mut preferences = vec![vec![0.5; count]; count];
        for ((first, second), report) in pairs.zip(reports.iter().filter_map(|report| report.as_ref().ok())) {
            preferences[first][second] = report.reward.get();
            preferences[second][first] = 1.0 - report.reward.get();
        }
        let tournament = Tournament::new(preferences.clone())
            .map_err(|reason| invalid(format!("the rewards are no preferences: {reason}; leave transforms out")))?;
        Ok(TournamentResponse { preferences, standing: tournament.standing() })
    })
}
