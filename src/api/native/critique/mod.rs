//! `POST /v1/critique`: a model writes what it thinks of a response, and the response is scored with that in view.

mod dto;

use std::{collections::BTreeSet, time::Instant};

use aide::{
    OperationOutput,
    axum::{ApiRouter, routing::post_with},
    generate::GenContext,
    openapi::{MediaType, Operation, Response as ResponseDoc},
    transform::TransformOperation,
};
use axum::{
    Json,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::stream;
use karat_engine::{
    engine::{Critique, CritiqueEvent, Critiques, ScoreError, ScoreReport, ScoreRequest},
    text::Truncation,
};
use karat_rules::domain::Sample;
use serde::Serialize;

use super::{
    call::Call,
    request::{Options, samples},
    result::{Include, SampleResult},
};
use crate::api::{AppState, problem::Problem, runs::RunTag};
use dto::{CritiqueBody, CritiqueResponse, CritiqueResult, CritiqueScore, Summary, TokenEvent};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/critique", post_with(critique, describe))
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("critique").tag("Scoring").summary("Write a critique of a response, then score it").description(
        "Asks a model that writes critiques about the response, and scores the question with the critique as the answer \
         to it; with several critiques the reward is the mean. With `stream` the reply is a stream of server-sent \
         events: `token` (`index`, `text`) as letters come, `critique` when one is complete, `score`, and `done`; or \
         `error` with a problem, after which nothing comes. Generation stops when the client leaves.",
    )
}

async fn critique(Call { state, id, run, body, options }: Call<CritiqueBody>) -> Result<Reply, Problem> {
    let stream = body.stream;
    let deadline = options.deadline()?;
    let scorer = body.scorer.clone();
    let (score, count, include) = (body.score, body.critiques, body.include.clone());
    let request = body.into_request(&options, deadline)?;
    let scorer = match (score, scorer) {
        (false, _) => None,
        (true, None) => Some(scoring(options, count, &state)?),
        (true, Some(model)) => {
            Some(scoring(options.of_model(model), count, &state).map_err(|problem| problem.about("scorer"))?)
        }
    };
    let critiques = state.critique(request).await?;
    let session = Session { state, id, run, critiques, written: Vec::new(), scorer, include, deadline };
    if stream {
        return Ok(Reply::Stream(Box::new(session)));
    }
    session.whole().await.map(|whole| Reply::Whole(Box::new(whole)))
}

/// How critiques will be scored, with stand-ins for them: what can't score is told before anything is written for it.
fn scoring(options: Options, critiques: usize, state: &AppState) -> Result<ScoreRequest, Problem> {
    let stand_in = |()| Sample::from_prompt("question".to_owned(), "critique".to_owned()).map_err(|e| e.to_string());
    let samples = samples("critiques", vec![(); critiques], stand_in);
    // A critique stands for nothing without the whole of what it is about.
    let request = options.into_whole_request(samples)?.with_truncation(Some(Truncation::Refuse));
    state.engine.check_scores(&request)?;
    Ok(request)
}

/// One request from its admission to its end.
struct Session {
    state: AppState,
    id: String,
    run: Option<RunTag>,
    critiques: Critiques,
    written: Vec<Critique>,
    /// Who scores, and by which rules.
    scorer: Option<ScoreRequest>,
    include: BTreeSet<Include>,
    deadline: Option<Instant>,
}

impl Session {
    async fn whole(mut self) -> Result<CritiqueResponse, Problem> {
        while let Some(event) = self.critiques.next().await {
            if let CritiqueEvent::Written(critique) = event? {
                self.state.visit.spend(critique.tokens);
                self.written.push(critique);
            }
        }
        let score = self.score().await?;
        Ok(CritiqueResponse {
            score,
            summary: self.summary(),
            critiques: self
                .written
                .iter()
                .map(|critique| CritiqueResult::new(critique, self.critiques.rates()))
                .collect(),
        })
    }

    /// Scores what was written.
    async fn score(&mut self) -> Result<CritiqueScore, Problem> {
        self.written.sort_by_key(|critique| critique.index);
        let mut score = CritiqueScore::default();
        if self.critiques.rates() {
            let ratings: Vec<f64> = self.written.iter().filter_map(|critique| critique.rating).collect();
            score.rating = Some(mean(&ratings));
        }
        let Some(request) = self.scorer.take() else { return Ok(score) };
        let samples =
            self.written.iter().filter_map(|critique| Some((critique.index, self.critiques.sample(critique)?)));
        let (indices, samples): (Vec<usize>, Vec<_>) = samples.unzip();
        score.reward = Some(None);
        if samples.is_empty() {
            return Ok(score);
        }
        let request = request.with_samples(samples)?.with_deadline(self.deadline);
        let ScoreReport { model, version, results, usage, .. } =
            self.state.score(self.run.as_ref(), &self.id, request).await?;
        let rewards: Vec<f64> = results.iter().map(|sample| sample.reward.get()).collect();
        let scores = indices.into_iter().zip(results);
        Ok(CritiqueScore {
            reward: Some(mean(&rewards)),
            scores: scores.map(|(index, sample)| SampleResult::new(index, sample, &self.include)).collect(),
            scorer: Some(model),
            scorer_version: Some(version),
            scoring: Some(usage.into()),
            ..score
        })
    }

    fn summary(&self) -> Summary {
        let model = self.critiques.model();
        Summary {
            id: self.id.clone(),
            model: model.name.clone(),
            model_version: model.version.clone(),
            prompt_tokens: self.critiques.prompt_tokens(),
            generated_tokens: self.written.iter().map(|critique| critique.tokens).sum(),
        }
    }

    /// The next event of a stream and what comes after it.
    async fn step(mut self, stage: Stage) -> Option<(sse::Event, Self, Stage)> {
        let (event, next) = match stage {
            Stage::Writing => match self.critiques.next().await {
                Some(Ok(CritiqueEvent::Text { index, text })) => {
                    (named("token", &TokenEvent { index, text }), Stage::Writing)
                }
                Some(Ok(CritiqueEvent::Written(critique))) => {
                    self.state.visit.spend(critique.tokens);
                    let event = named("critique", &CritiqueResult::new(&critique, self.critiques.rates()));
                    self.written.push(critique);
                    (event, Stage::Writing)
                }
                Some(Err(error)) => (failure(error), Stage::Over),
                None => match self.score().await {
                    Ok(score) => (named("score", &score), Stage::Scored),
                    Err(problem) => (named("error", &problem.into_body()), Stage::Over),
                },
            },
            Stage::Scored => (named("done", &self.summary()), Stage::Over),
            Stage::Over => return None,
        };
        Some((event, self, next))
    }
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Writing,
    Scored,
    Over,
}

fn failure(error: ScoreError) -> sse::Event {
    named("error", &Problem::from(error).into_body())
}

/// An event with JSON data. None of the types here fails to be written.
fn named(name: &str, data: &impl Serialize) -> sse::Event {
    sse::Event::default().event(name).json_data(data).unwrap_or_else(|error| {
        tracing::error!(%error, name, "an event can't be written");
        sse::Event::default().event("error").data("{}")
    })
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| karat_rules::numeric::mean(values))
}

/// Either all at once, or as it comes.
enum Reply {
    Whole(Box<CritiqueResponse>),
    Stream(Box<Session>),
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self {
            Self::Whole(whole) => Json(whole).into_response(),
            Self::Stream(session) => {
                let events = stream::unfold(Some((*session, Stage::Writing)), |state| async {
                    let (session, stage) = state?;
                    let (event, session, stage) = session.step(stage).await?;
                    Some((Ok::<_, std::convert::Infallible>(event), Some((session, stage))))
                });
                Sse::new(events).keep_alive(KeepAlive::default()).into_response()
            }
        }
    }
}

impl OperationOutput for Reply {
    type Inner = CritiqueResponse;

    fn operation_response(context: &mut GenContext, operation: &mut Operation) -> Option<ResponseDoc> {
        let mut response = Json::<CritiqueResponse>::operation_response(context, operation)?;
        response.description = "The critiques and their score; with `stream`, server-sent events".to_owned();
        response.content.insert("text/event-stream".to_owned(), MediaType::default());
        Some(response)
    }

    fn inferred_responses(context: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, ResponseDoc)> {
        Self::operation_response(context, operation).map(|response| (Some(200), response)).into_iter().collect()
    }
}
