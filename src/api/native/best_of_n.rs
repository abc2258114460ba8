//! `POST /v1/best-of-n`: which of several candidates for one prompt to keep.

use std::{collections::BTreeSet, mem};

use aide::{
    axum::{ApiRouter, routing::post_with},
    transform::TransformOperation,
};
use karat_engine::engine::{Embeddings, ScoreError, ScoreReport};
use karat_rules::{
    domain::{Cut, ModelName, ModelVersion, Reward, catalogue::Choice},
    select::{self, Available, Candidates, CandidatesError, CurvePoint, Placement, Ranking, Selected, Selection},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::{
    call::{Call, OwnBody},
    envelope::{Envelope, each},
    request::{samples, seen_answer, seen_turns},
    result::{Include, Outcome, SampleResult, UsageBody},
    turn::{Response, Turn},
};
use crate::api::{
    AppState,
    apart::apart,
    body::optional_objects,
    checks,
    images::ImageSource,
    problem::{Problem, invalid},
    reply::Reply,
};

pub(super) fn routes() -> ApiRouter<AppState> {
    ApiRouter::new().api_route("/v1/best-of-n", post_with(best_of_n, describe))
}

/// Candidates for one prompt.
#[derive(Debug, Deserialize, JsonSchema)]
struct BestOfNBody {
    /// What was asked, as a single turn.
    #[serde(default)]
    prompt: Option<String>,
    /// What was said before the response, oldest first; instead of `prompt`.
    #[serde(default, deserialize_with = "optional_objects")]
    messages: Option<Vec<Turn>>,
    /// The responses to choose from, at least one: texts, or images of models that see. Equal ones keep their own places.
    #[schemars(length(min = 1))]
    candidates: Vec<Response>,
    /// How to choose.
    #[serde(default = "best_of_n_rule")]
    #[schemars(schema_with = "selection_schema")]
    select: Choice,
    /// Each candidate's final answer, for rules that count votes.
    #[serde(default)]
    answers: Option<Vec<String>>,
    /// Each candidate's embedding, for rules that look for diversity; without it, they compare the texts.
    #[serde(default)]
    embeddings: Option<Vec<Vec<f64>>>,
    /// The model that embeds the candidates, each with what goes before it, instead of `embeddings`: one with the head
    /// `embedding`.
    #[serde(default)]
    embedding_model: Option<String>,
    /// What to add to each result.
    #[serde(default)]
    include: BTreeSet<Include>,
    /// Whether to add the expected reward of the best of n for every n, an estimate without bias from these candidates.
    #[serde(default)]
    curve: bool,
}

impl OwnBody for BestOfNBody {
    fn inputs(&self) -> usize {
        self.candidates.len()
    }

    fn images(&mut self) -> Vec<&mut ImageSource> {
        let turns = self.messages.iter_mut().flatten().flat_map(Turn::images);
        turns.chain(self.candidates.iter_mut().filter_map(Response::image)).collect()
    }
}

/// Which candidates to keep, and why.
#[derive(Debug, Serialize, JsonSchema)]
struct BestOfNResponse {
    /// The index of the first candidate that the rule picks; null when none is good enough.
    best: Option<usize>,
    /// What the rule picks.
    selected: Selected,
    /// All candidates that were scored from best to worst, with their margins; ties by index.
    ranking: Vec<Placement>,
    /// The candidates that no other one beats in every objective; left out when there is one objective.
    #[serde(skip_serializing_if = "Option::is_none")]
    pareto_front: Option<Vec<usize>>,
    /// For every n, the expected reward of the best of n, and how far that moves the policy in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    curve: Option<Vec<CurvePoint>>,
    /// What embedded the candidates, if the request names a model for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<EmbeddingBody>,
    /// One result for each candidate, in their order.
    results: Vec<Outcome<SampleResult>>,
}

/// What embedded the candidates.
#[derive(Debug, Serialize, JsonSchema)]
struct EmbeddingBody {
    /// The model that embedded.
    model: ModelName,
    /// Exactly which one.
    model_version: ModelVersion,
    /// What was cut of each candidate before it was embedded; left out when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    cuts: Option<Vec<Cut>>,
    /// What it cost.
    usage: UsageBody,
}

impl EmbeddingBody {
    fn new(embeddings: Embeddings) -> Self {
        let Embeddings { model, version, cuts, usage, .. } = embeddings;
        let cuts = cuts.iter().any(|cut| cut.is_cut()).then_some(cuts);
        Self { model, model_version: version, cuts, usage: usage.into() }
    }
}

fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("bestOfN").tag("Scoring").summary("Choose among the responses to one prompt").description(
        "Scores every candidate, ranks them with margins, and picks by the rule in `select`: the best, a draw at a \
         temperature, a vote, a Pareto front, or none when none is good enough.",
    )
}

fn best_of_n_rule() -> Choice {
    Choice::named("best_of_n")
}

fn selection_schema(generator: &mut SchemaGenerator) -> Schema {
    select::CATALOGUE.schema(generator)
}

async fn best_of_n(
    Call { state, id, run, body, options }: Call<BestOfNBody>,
) -> Result<Reply<Envelope<BestOfNResponse>>, Problem> {
    let rule = select::CATALOGUE.build(&body.select).map_err(invalid)?;
    let count = body.candidates.len();
    let texts = body.candidates.iter().map(|candidate| candidate.text().map(str::to_owned)).collect();
    let mut details = CandidateDetails { count, texts, answers: body.answers, embeddings: body.embeddings };
    let turns = seen_turns(body.prompt, body.messages).map_err(invalid)?;
    let samples = samples("candidates", body.candidates, |candidate| seen_answer(&turns, candidate));
    let embeddable: Vec<usize> = (0..samples.len()).filter(|index| samples[*index].is_ok()).collect();
    let deadline = options.deadline()?;
    let request = options.into_request(samples, true)?;
    let objectives = state.engine.has_objectives(&request)?;
    let available = details.available(objectives);
    let embed = match body.embedding_model {
        None => {
            rule.check(&available).map_err(invalid)?;
            None
        }
        Some(name) => {
            check_embedding_is_used(&*rule, &available)?;
            let model = checks::model(&name).map_err(about_embedding)?;
            state.engine.check_embeds(&model).map_err(about_embedding)?;
            Some(request.to_embed(model))
        }
    };

    let scored = state.score(run.as_ref(), &id, request);
    let embedded = async {
        match embed {
            Some(request) => state.embed(request).await.map(Some).map_err(about_embedding),
            None => Ok(None),
        }
    };
    let (mut report, mut embedded) = tokio::try_join!(scored, embedded)?;
    if let Some(embeddings) = &mut embedded {
        report.timings = report.timings.beside(embeddings.timings);
        // Of a candidate that is no text there is no vector, and it isn't chosen among.
        let mut vectors = vec![Vec::new(); details.count];
        for (index, vector) in embeddable.into_iter().zip(mem::take(&mut embeddings.vectors)) {
            vectors[index] = vector;
        }
        details.embeddings = Some(vectors);
    }
    let ranking = apart(move || {
        let ranked = Ranked::by(&*rule, details, &report, body.curve);
        (report, ranked)
    });
    let (report, ranked) = match deadline {
        Some(deadline) => timeout_at(deadline.into(), ranking).await.map_err(|_| ScoreError::Expired)??,
        None => ranking.await?,
    };
    let ranked = ranked?;
    Envelope::reply(id, report, |reports| {
        Ok(BestOfNResponse {
            best: ranked.selected.indices.first().copied(),
            selected: ranked.selected,
            ranking: ranked.ranking,
            pareto_front: ranked.pareto_front,
            curve: ranked.curve,
            embedding: embedded.map(EmbeddingBody::new),
            results: each(reports, |(index, sample)| Ok(SampleResult::new(index, sample, &body.include)))?,
        })
    })
}

/// A problem of the model that embeds.
fn about_embedding(problem: impl Into<Problem>) -> Problem {
    problem.into().about("embedding_model")
}

/// Embeddings cost as much as scores: nobody pays for those that nothing reads, or that the request holds already.
fn check_embedding_is_used(rule: &dyn Selection, available: &Available) -> Result<(), Problem> {
    if available.embeddings {
        return Err(invalid("write one of \"embeddings\" and \"embedding_model\", not both"));
    }
    rule.check(&Available { embeddings: true, ..*available }).map_err(invalid)?;
    if rule.check(available).is_ok() {
        return Err(invalid(
            "the rule in \"select\" compares no embeddings; leave \"embedding_model\" out, or choose a rule that does, \
             such as \"diverse\" with \"distance\": \"embeddings\"",
        ));
    }
    Ok(())
}

/// What a request tells of its candidates beside their text.
struct CandidateDetails {
    /// How many candidates there are.
    count: usize,
    /// None where a candidate is an image.
    texts: Option<Vec<String>>,
    answers: Option<Vec<String>>,
    embeddings: Option<Vec<Vec<f64>>>,
}

impl CandidateDetails {
    /// What it tells of some of the candidates. A list that isn't as long as the candidates is refused where it is used.
    fn of(self, places: &[usize]) -> Self {
        fn at<T: Clone>(list: Vec<T>, places: &[usize], all: usize) -> Vec<T> {
            if list.len() == all { places.iter().map(|place| list[*place].clone()).collect() } else { list }
        }
        let all = self.count;
        Self {
            count: places.len(),
            texts: self.texts.map(|texts| at(texts, places, all)),
            answers: self.answers.map(|answers| at(answers, places, all)),
            embeddings: self.embeddings.map(|embeddings| at(embeddings, places, all)),
        }
    }

    fn available(&self, objectives: bool) -> Available {
        Available {
            objectives,
            answers: self.answers.is_some(),
            texts: self.texts.is_some(),
            embeddings: self.embeddings.is_some(),
        }
    }

    fn describe(self, mut candidates: Candidates) -> Result<Candidates, CandidatesError> {
        if let Some(texts) = self.texts {
            candidates = candidates.with_texts(texts)?;
        }
        if let Some(answers) = self.answers {
            candidates = candidates.with_answers(answers)?;
        }
        if let Some(embeddings) = self.embeddings {
            candidates = candidates.with_embeddings(embeddings)?;
        }
        Ok(candidates)
    }
}

/// The candidates in order, and those that the rule picked.
struct Ranked {
    selected: Selected,
    ranking: Vec<Placement>,
    pareto_front: Option<Vec<usize>>,
    curve: Option<Vec<CurvePoint>>,
}

impl Ranked {
    /// Ranks the candidates that were scored; indices are those of the request.
    fn by(rule: &dyn Selection, details: CandidateDetails, report: &ScoreReport, curve: bool) -> Result<Self, Problem> {
        let refused: Vec<usize> = report.refused.iter().map(|refusal| refusal.index).collect();
        let all = report.results.len() + refused.len();
        let places: Vec<usize> = (0..all).filter(|index| refused.binary_search(index).is_err()).collect();
        let rewards: Vec<Reward> = report.results.iter().map(|sample| sample.reward).collect();
        let objectives: Vec<Vec<f64>> = report
            .results
            .iter()
            .map(|sample| sample.detail().objectives.iter().map(|(_, reward)| reward.get()).collect())
            .collect();
        let several = objectives.first().is_some_and(|first| first.len() > 1);
        let Some(candidates) = Candidates::new(&rewards) else {
            let selected = Selected { indices: Vec::new(), probabilities: None };
            return Ok(Self { selected, ranking: Vec::new(), pareto_front: None, curve: None });
        };
        let details = if refused.is_empty() { details } else { details.of(&places) };
        let mut candidates = details.describe(candidates).map_err(invalid)?;
        let pareto_front = several.then(|| {
            let on_front = select::pareto_front(&objectives);
            on_front.iter().zip(&places).filter(|(on, _)| **on).map(|(_, place)| *place).collect()
        });
        if several {
            candidates = candidates.with_objectives(objectives).map_err(invalid)?;
        }
        let mut selected = rule.select(&candidates).map_err(invalid)?;
        selected.indices.iter_mut().for_each(|index| *index = places[*index]);
        if let Some(known) = selected.probabilities.take() {
            let mut probabilities = vec![0.0; all];
            known.into_iter().zip(&places).for_each(|(probability, place)| probabilities[*place] = probability);
            selected.probabilities = Some(probabilities);
        }
        let curve = if curve { select::best_of_n_curve(candidates.rewards(), None) } else { None };
        let ranking = Ranking::of(&rewards);
        let ranking = ranking.placements().iter().map(|placed| Placement { index: places[placed.index], ..*placed });
        Ok(Self { selected, ranking: ranking.collect(), pareto_front, curve })
    }
}
