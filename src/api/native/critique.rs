//! `POST /v1/critique`: a model writes what it thinks of a response, and the response is scored with that in view.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Instant};

use aide::{
    OperationOutput,
    axum::{ApiRouter, routing::post_with},
    generate::GenContext,
    openapi::{MediaType, Operation, Response as ResponseDoc},
    transform::TransformOperation,
};
use axum::{
    Extension, Json,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_http::request_id::RequestId;

use super::{
    request::{Options, check_count, turns},
    result::{Include, SampleResult, UsageBody},
};
use crate::{
    api::{
        AppState,
        body::{SharedBody, optional_objects},
        middleware::id_text,
        problem::{Problem, ProblemType},
    },
    domain::{Conversation, Cut, Message, ModelName, ModelVersion, Role},
    engine::{Critique, CritiqueEvent, CritiqueRequest, Critiques, Ending, ScoreError, ScoreReport},
    generate::Sampling,
    text::StopStrings,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/critique", post_with(critique, describe))
}

/// A response to criticise.
#[derive(Debug, Deserialize, JsonSchema)]
struct CritiqueBody {
    /// What was asked, as a single turn; with `response`.
    #[serde(default)]
    prompt: Option<String>,
    /// The response to criticise.
    #[serde(default)]
    response: Option<String>,
    /// A dialogue that ends with the assistant's message, which is criticised; instead of `prompt` and `response`.
    #[serde(default, deserialize_with = "optional_objects")]
    messages: Option<Vec<Message>>,
    /// How many critiques to write; several need a temperature above 0, or they would all be the same.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    critiques: usize,
    /// 0 always takes the likeliest token; 1 draws by the model's own probabilities.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    temperature: f64,
    /// Draws out of the fewest likeliest tokens that make up this share of the probability.
    #[serde(default = "all")]
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: f64,
    /// What the draws depend on: the same seed gives the same critiques, whatever else the server does. The n-th of
    /// several critiques, counted from 0, is what `seed` + n gives alone.
    #[serde(default)]
    seed: u64,
    /// The most tokens of each critique; by default as the model's manifest says.
    #[serde(default)]
    #[schemars(range(min = 1))]
    max_tokens: Option<usize>,
    /// Texts that end a critique when they appear, and aren't part of it.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    stop: Vec<String>,
    /// The model that scores; by default the one that writes.
    #[serde(default)]
    scorer: Option<String>,
    /// Whether to score at all.
    #[serde(default = "yes")]
    score: bool,
    /// Whether to send the critique as server-sent events while it is being written.
    #[serde(default)]
    stream: bool,
    /// What to add to each score.
    #[serde(default)]
    include: BTreeSet<Include>,
}

fn one() -> usize {
    1
}

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// The critiques and what became of the score.
#[derive(Debug, Serialize, JsonSchema)]
struct CritiqueResponse {
    /// The critiques, in their order.
    critiques: Vec<CritiqueResult>,
    #[serde(flatten)]
    verdict: Verdict,
    #[serde(flatten)]
    summary: Summary,
}

/// One complete critique; the data of the event `critique`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct CritiqueResult {
    /// Which, counted from 0.
    index: usize,
    /// All of it.
    text: String,
    /// Why it ended: the model ended it (`end`), it was as long as it may be (`length`), or a stop string appeared
    /// (`stop`).
    finish: FinishWord,
    /// How many tokens were generated.
    tokens: usize,
    /// The number that the model wrote, if its manifest says how to find one: null when the text holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    rating: Option<Option<f64>>,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FinishWord {
    End,
    Length,
    Stop,
}

/// What the critiques come to; the data of the event `score`.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Verdict {
    /// The mean of the critiques' rewards: of the response, scored with each critique in view. Null when all critiques
    /// are empty; left out when no score was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    reward: Option<Option<f64>>,
    /// The mean of the ratings that were found, if the model's manifest says how to find one: null when none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<f64>")]
    rating: Option<Option<f64>>,
    /// The scores, one for each critique that isn't empty, which `index` tells.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scores: Vec<SampleResult>,
    /// The model that scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    scorer: Option<ModelName>,
    /// Exactly which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    scorer_version: Option<ModelVersion>,
    /// What scoring cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    scoring: Option<UsageBody>,
}

/// Who wrote, and what it cost; the data of the event `done`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Summary {
    /// The request's id, as in the `X-Request-Id` header.
    id: String,
    /// The model that wrote.
    model: ModelName,
    /// Exactly which one: a digest over its manifest, graphs and tokenizer.
    model_version: ModelVersion,
    /// The length of the question in tokens.
    prompt_tokens: usize,
    /// The tokens of all critiques.
    generated_tokens: usize,
    /// What was cut of the question; left out when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

/// The next letters of a critique; the data of the event `token`.
#[derive(Debug, Serialize)]
struct TokenEvent {
    index: usize,
    text: String,
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("critique").tag("Scoring").summary("Write a critique of a response, then score it").description(
        "Asks a model that writes critiques about the response, and scores the question with the critique as the answer \
         to it; with several critiques the reward is the mean. With `stream` the reply is a stream of server-sent \
         events: `token` (`index`, `text`) as letters come, `critique` when one is complete, `score`, and `done`; or \
         `error` with a problem, after which nothing comes. Generation stops when the client leaves.",
    )
}

fn invalid(reason: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemType::InvalidRequest, reason.to_string())
}

async fn critique(
    State(state): State<AppState>,
    Extension(id): Extension<RequestId>,
    SharedBody { own: body, shared: options }: SharedBody<CritiqueBody, Options>,
) -> Result<Reply, Problem> {
    check_count(body.critiques, &state.limits)?;
    let stream = body.stream;
    let deadline = options.deadline()?;
    let scorer = body.scorer.clone();
    let (score, include) = (body.score, body.include.clone());
    let request = body.into_request(&options, deadline)?;
    let scorer = match (score, scorer) {
        (false, _) => None,
        (true, None) => Some(options),
        (true, Some(model)) => Some(options.of_model(model)),
    };
    if let Some(scorer) = &scorer {
        // Told before anything is written for it.
        state.engine.model(&scorer.model_name()?)?;
    }
    let critiques = state.engine.critique(request).await?;
    let session = Session { state, id: id_text(&id), critiques, written: Vec::new(), scorer, include, deadline };
    if stream {
        return Ok(Reply::Stream(Box::new(session)));
    }
    session.whole().await.map(|whole| Reply::Whole(Box::new(whole)))
}

impl CritiqueBody {
    fn into_request(self, options: &Options, deadline: Option<Instant>) -> Result<CritiqueRequest, Problem> {
        let subject = match (self.prompt, self.response, self.messages) {
            (prompt, Some(response), messages) => {
                let mut turns = turns(prompt, messages).map_err(invalid)?;
                turns.push(Message { role: Role::Assistant, content: response });
                Conversation::new(turns)
            }
            (None, None, Some(messages)) => Conversation::new(messages),
            _ => {
                return Err(invalid("write {\"prompt\", \"response\"}, or {\"messages\"} that end with the response"));
            }
        };
        if self.critiques == 0 {
            return Err(invalid("critiques must be at least 1"));
        }
        if self.critiques > 1 && self.temperature == 0.0 {
            return Err(invalid("at temperature 0 all critiques are the same; ask for one, or set a temperature"));
        }
        let max_tokens =
            self.max_tokens.map(|most| NonZeroUsize::new(most).ok_or_else(|| invalid("max_tokens must be at least 1")));
        let sampling = Sampling::new(self.temperature, self.top_p, self.seed).map_err(invalid)?;
        Ok(CritiqueRequest {
            model: options.model_name()?,
            subject: subject.map_err(invalid)?,
            texts: (0..self.critiques as u64).map(|index| sampling.nth(index)).collect(),
            max_tokens: max_tokens.transpose()?,
            stop: StopStrings::new(self.stop).map_err(invalid)?,
            truncation: options.truncation(),
            deadline,
        })
    }
}

/// One request from its admission to its end.
struct Session {
    state: AppState,
    id: String,
    critiques: Critiques,
    written: Vec<Critique>,
    /// Who scores, and by which rules.
    scorer: Option<Options>,
    include: BTreeSet<Include>,
    deadline: Option<Instant>,
}

impl Session {
    async fn whole(mut self) -> Result<CritiqueResponse, Problem> {
        while let Some(event) = self.critiques.next().await {
            if let CritiqueEvent::Written(critique) = event? {
                self.written.push(critique);
            }
        }
        let verdict = self.score().await?;
        Ok(CritiqueResponse {
            verdict,
            summary: self.summary(),
            critiques: self.written.iter().map(|critique| result(critique, self.critiques.rates())).collect(),
        })
    }

    /// Scores what was written.
    async fn score(&mut self) -> Result<Verdict, Problem> {
        self.written.sort_by_key(|critique| critique.index);
        let mut verdict = Verdict::default();
        if self.critiques.rates() {
            let ratings: Vec<f64> = self.written.iter().filter_map(|critique| critique.rating).collect();
            verdict.rating = Some(mean(&ratings));
        }
        let Some(options) = self.scorer.take() else { return Ok(verdict) };
        let samples =
            self.written.iter().filter_map(|critique| Some((critique.index, self.critiques.sample(critique)?)));
        let (indices, samples): (Vec<usize>, Vec<_>) = samples.unzip();
        verdict.reward = Some(None);
        if samples.is_empty() {
            return Ok(verdict);
        }
        let request = options.into_request(samples, false, &self.state.limits)?.with_deadline(self.deadline);
        let ScoreReport { model, version, results, usage, .. } = self.state.engine.score(request).await?;
        let rewards: Vec<f64> = results.iter().map(|sample| sample.reward.get()).collect();
        let scores = indices.into_iter().zip(results);
        Ok(Verdict {
            reward: Some(mean(&rewards)),
            scores: scores.map(|(index, sample)| SampleResult::new(index, sample, &self.include)).collect(),
            scorer: Some(model),
            scorer_version: Some(version),
            scoring: Some(usage.into()),
            ..verdict
        })
    }

    fn summary(&self) -> Summary {
        let model = self.critiques.model();
        let cut = self.critiques.cut();
        Summary {
            id: self.id.clone(),
            model: model.name.clone(),
            model_version: model.version.clone(),
            prompt_tokens: self.critiques.prompt_tokens(),
            generated_tokens: self.written.iter().map(|critique| critique.tokens).sum(),
            cut: cut.is_cut().then_some(cut),
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
                    let event = named("critique", &result(&critique, self.critiques.rates()));
                    self.written.push(critique);
                    (event, Stage::Writing)
                }
                Some(Err(error)) => (failure(error), Stage::Over),
                None => match self.score().await {
                    Ok(verdict) => (named("score", &verdict), Stage::Scored),
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

fn result(critique: &Critique, rates: bool) -> CritiqueResult {
    CritiqueResult {
        index: critique.index,
        text: critique.text.clone(),
        finish: match critique.ending {
            Ending::End => FinishWord::End,
            Ending::Length => FinishWord::Length,
            Ending::Stop => FinishWord::Stop,
        },
        tokens: critique.tokens,
        rating: rates.then_some(critique.rating),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| crate::numeric::mean(values))
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
