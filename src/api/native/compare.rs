//! `POST /v1/compare`: how much better a chosen response is than a rejected one.

use std::collections::BTreeSet;

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use karat_engine::engine::{Draft, SampleReport};
use karat_rules::{
    domain::{self, Sample, catalogue::Choice},
    metrics::{self, Strength},
    numeric::{logit, sigmoid},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    call::{Call, OwnBody},
    envelope::Envelope,
    request::{samples, seen_answer, seen_turns},
    result::{Include, SampleResult},
    turn::{self, Response, Turn},
};
use crate::api::{
    AppState,
    body::{objects, optional_objects},
    images::{self, ImageSource},
    problem::{Problem, invalid},
    reply::Reply,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/compare", post_with(compare, describe))
}

/// Pairs of responses.
#[derive(Debug, Deserialize, JsonSchema)]
struct CompareBody {
    /// The pairs, at least one.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1))]
    pairs: Vec<Pair>,
    /// Where the suggestions of preference strength change (`strengths` or `shares`, each with `flip`, `ambiguous` and
    /// `smooth`, ascending); without it no suggestions are made, since good cuts depend on the data.
    #[serde(default)]
    cuts: Option<Map<String, Value>>,
    /// The temperature of reward differences: each pair's `reward_difference` is its margin divided by it (PRDP).
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    beta: Option<f64>,
    /// What to add to each result.
    #[serde(default)]
    include: BTreeSet<Include>,
}

impl OwnBody for CompareBody {
    fn inputs(&self) -> usize {
        self.pairs.len().saturating_mul(2)
    }

    fn images(&mut self) -> Vec<&mut ImageSource> {
        let each = self.pairs.iter_mut().flat_map(|Pair { messages, chosen, rejected, .. }| {
            let turns = messages.iter_mut().flatten().flat_map(Turn::images);
            turns.chain(chosen.image()).chain(rejected.image())
        });
        each.collect()
    }
}

/// Two responses to one prompt.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// What was asked, as a single turn.
    #[serde(default)]
    prompt: Option<String>,
    /// What was said before the response, oldest first; instead of `prompt`.
    #[serde(default, deserialize_with = "optional_objects")]
    messages: Option<Vec<Turn>>,
    /// The response that is said to be better: text, or an image of models that see.
    chosen: Response,
    /// The response that is said to be worse.
    rejected: Response,
}

/// The pairs' margins.
#[derive(Debug, Serialize, JsonSchema)]
struct CompareResponse {
    /// The share of pairs whose chosen response scores strictly higher.
    accuracy: f64,
    /// One result for each pair.
    results: Vec<PairResult>,
}

/// One pair's margin.
#[derive(Debug, Serialize, JsonSchema)]
struct PairResult {
    /// The pair's place in the request, counted from 0.
    index: usize,
    /// The reward of the chosen response less that of the rejected one.
    margin: f64,
    /// The Bradley-Terry probability that the chosen response is better: the sigmoid of the margin. It means something
    /// where rewards are on the scale of log-odds.
    probability: f64,
    /// The margin divided by `beta`, if that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    reward_difference: Option<f64>,
    /// How strongly the ensemble's members agree with the preference.
    strength: Strength,
    /// Whether all members put the same response first.
    unanimous: bool,
    /// What to do about the pair, by the cuts that were sent: `flip`, `ambiguous`, `keep` or `smooth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<Value>,
    /// The chosen response; left out by models that judge both together.
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<SampleResult>,
    /// The rejected response; left out by models that judge both together.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<SampleResult>,
    /// What a model that judges both together says: `reward` is the preference for the chosen response, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<SampleResult>,
    /// The preference for the chosen response when it is shown first and when it is shown second, where a judge was asked
    /// in both orders; `reward` is their mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    orders: Option<[f64; 2]>,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("compare").tag("Scoring").summary("Compare chosen with rejected responses").description(
        "Scores both responses of each pair and tells the margin, the probability of the preference, and how strongly \
         the ensemble agrees with it. A model with a pairwise judge looks at both responses at once, in both orders: its \
         preference is the probability, and the margin is the preference's log-odds.",
    )
}

async fn compare(
    Call { state, id, run, body, options }: Call<CompareBody>,
) -> Result<Reply<Envelope<CompareResponse>>, Problem> {
    if body.beta.is_some_and(|beta| !(beta.is_finite() && beta > 0.0)) {
        return Err(invalid("beta must be a finite number above 0"));
    }
    let judged = state.engine.model(&options.model_name()?)?.judges_pairs();
    let samples = if judged { together(body.pairs)? } else { apart(body.pairs)? };
    let request = options.into_whole_request(samples);
    let request = request.map_err(|problem| if judged { problem } else { problem.of_pair() })?;
    let scored = state.score(run.as_ref(), &id, request).await;
    let report = scored.map_err(|problem| if judged { problem } else { problem.of_pair() })?;
    Envelope::reply(id, report, |reports| {
        // Nothing is refused apart from its pair.
        let reports = reports.into_iter().filter_map(Result::ok).collect();
        outcome(reports, judged, body.cuts.as_ref(), body.beta, &body.include)
    })
}

/// The margins of the pairs, whose sides were judged together or scored in turn.
fn outcome(
    reports: Vec<SampleReport>,
    judged: bool,
    cuts: Option<&Map<String, Value>>,
    beta: Option<f64>,
    include: &BTreeSet<Include>,
) -> Result<CompareResponse, Problem> {
    let mut comparisons = Vec::new();
    let mut reports = reports.into_iter();
    while let Some(report) = reports.next() {
        comparisons.push(match (judged, reports.len()) {
            (true, _) => Comparison::of_judge(report),
            (false, 0) => break,
            // Each pair was sent as two samples.
            (false, _) => match reports.next() {
                Some(rejected) => Comparison::of_two(report, rejected),
                None => break,
            },
        });
    }
    let suggestions = cuts.map(|cuts| suggest(&comparisons, cuts)).transpose()?;
    let right = comparisons.iter().filter(|comparison| comparison.margin > 0.0).count();
    #[expect(clippy::cast_precision_loss, reason = "a share of a request's pairs")]
    let accuracy = right as f64 / comparisons.len().max(1) as f64;
    let results = comparisons.into_iter().enumerate().map(|(index, comparison)| {
        let mut result = comparison.into_result(index, beta, include)?;
        result.suggestion = suggestions.as_ref().map(|suggestions| suggestions[index].clone());
        Ok(result)
    });
    Ok(CompareResponse { accuracy, results: results.collect::<Result<_, Problem>>()? })
}

/// One sample for each response, chosen and rejected in turn.
fn apart(pairs: Vec<Pair>) -> Result<Vec<Draft>, Problem> {
    let mut sides = Vec::with_capacity(pairs.len() * 2);
    for (index, pair) in pairs.into_iter().enumerate() {
        let turns = turns_of(index, pair.prompt, pair.messages)?;
        sides.push((turns.clone(), pair.chosen));
        sides.push((turns, pair.rejected));
    }
    Ok(samples("pairs (chosen and rejected in turn)", sides, |(turns, response)| seen_answer(&turns, response)))
}

/// One sample for each pair.
fn together(pairs: Vec<Pair>) -> Result<Vec<Draft>, Problem> {
    let pairs = pairs.into_iter().enumerate().map(|(index, pair)| {
        let turns = turns_of(index, pair.prompt, pair.messages)?;
        let refuse = |reason: String| invalid(format!("pairs[{index}]: {reason}")).at(index);
        let (Response::Text(chosen), Response::Text(rejected)) = (pair.chosen, pair.rejected) else {
            return Err(refuse(images::about_images()));
        };
        let turns = turn::texts(turns).map_err(refuse)?;
        domain::Pair::new(turns, chosen, rejected)
            .map(|pair| Ok(Sample::Pair(pair)))
            .map_err(|error| refuse(error.to_string()))
    });
    pairs.collect()
}

fn turns_of(index: usize, prompt: Option<String>, messages: Option<Vec<Turn>>) -> Result<Vec<Turn>, Problem> {
    seen_turns(prompt, messages).map_err(|reason| invalid(format!("pairs[{index}]: {reason}")).at(index))
}

/// What was made of one pair.
struct Comparison {
    margin: f64,
    /// The members' scores of the chosen response.
    ours: Vec<f64>,
    /// The members' scores of the rejected response; of a judge, zeros beside log-odds.
    theirs: Vec<f64>,
    reports: Reports,
}

enum Reports {
    Apart(Box<[SampleReport; 2]>),
    Together(Box<SampleReport>),
}

impl Comparison {
    fn of_two(chosen: SampleReport, rejected: SampleReport) -> Self {
        let members = |side: &SampleReport| side.ensemble.members.iter().map(|member| member.get()).collect();
        Self {
            margin: (chosen.reward.get() - rejected.reward.get()).clamp(f64::MIN, f64::MAX),
            ours: members(&chosen),
            theirs: members(&rejected),
            reports: Reports::Apart(Box::new([chosen, rejected])),
        }
    }

    /// The margin is the preference's log-odds before any transform, so that its sigmoid is the preference.
    fn of_judge(report: SampleReport) -> Self {
        let odds = |preference: f64| logit(preference.clamp(0.0, 1.0)).clamp(f64::MIN, f64::MAX);
        let ours: Vec<f64> = report.ensemble.members.iter().map(|member| odds(member.get())).collect();
        Self {
            margin: odds(report.raw.get()),
            theirs: vec![0.0; ours.len()],
            ours,
            reports: Reports::Together(Box::new(report)),
        }
    }

    fn into_result(self, index: usize, beta: Option<f64>, include: &BTreeSet<Include>) -> Result<PairResult, Problem> {
        let differences = || self.ours.iter().zip(&self.theirs).map(|(chosen, rejected)| chosen - rejected);
        let strength =
            Strength::of(&self.ours, &self.theirs).ok_or_else(|| invalid("the members' margins overflow"))?;
        let unanimous = differences().all(|margin| margin > 0.0) || differences().all(|margin| margin < 0.0);
        let result = |report| Some(SampleResult::new(index, report, include));
        let (chosen, rejected, judged, orders) = match self.reports {
            Reports::Apart(sides) => {
                let [chosen, rejected] = *sides;
                (result(chosen), result(rejected), None, None)
            }
            Reports::Together(report) => {
                let orders = report.detail().orders;
                (None, None, result(*report), orders)
            }
        };
        Ok(PairResult {
            index,
            margin: self.margin,
            probability: sigmoid(self.margin),
            reward_difference: beta.map(|beta| (self.margin / beta).clamp(f64::MIN, f64::MAX)),
            strength,
            unanimous,
            suggestion: None,
            chosen,
            rejected,
            judged,
            orders,
        })
    }
}

/// The suggestion for each pair, by the metric of that name.
fn suggest(comparisons: &[Comparison], cuts: &Map<String, Value>) -> Result<Vec<Value>, Problem> {
    let pairs: Vec<Value> = comparisons
        .iter()
        .map(|comparison| json!({ "chosen": comparison.ours, "rejected": comparison.theirs }))
        .collect();
    let parameters = json!({ "pairs": pairs, "cuts": cuts });
    let choice = Choice { name: "preference_strength".to_owned(), parameters };
    let metric = metrics::CATALOGUE.build(&choice).map_err(invalid)?;
    let judged = metric.compute().map_err(invalid)?;
    Ok((0..pairs.len()).map(|index| judged["pairs"][index]["suggestion"].clone()).collect())
}
