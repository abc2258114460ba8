//! `POST /score`: how well second texts answer first ones.

use aide::transform::TransformOperation;
use karat_engine::{engine::Draft, text::TextOptions};
use karat_rules::domain::{ModelName, Sample};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Common, UsageBody, response_limit};
use crate::api::{
    dialects::parts::{Body, Call, Document, ModelField, Unread, invalid, now, sample},
    problem::Problem,
    reply::Reply,
    reply_id::ReplyKind,
};

/// Pairs to score: one with one, one with many, or as many with as many.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "VllmScoreBody")]
pub(crate) struct ScoreBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    model: Option<String>,
    /// The first text or texts of the pairs: prompts.
    #[serde(alias = "data_1", alias = "text_1")]
    queries: OneOrMany,
    /// The second text or texts of the pairs: responses.
    #[serde(alias = "items", alias = "data_2", alias = "text_2")]
    documents: OneOrMany,
    /// Cut longer second texts at their end to this many tokens; 0 for none.
    #[serde(default)]
    max_tokens_per_doc: Option<usize>,
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "texts must be a string or a list of strings")]
enum OneOrMany {
    One(Document),
    Many(Vec<Document>),
}

impl OneOrMany {
    fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.into_text()],
            Self::Many(texts) => texts.into_iter().map(Document::into_text).collect(),
        }
    }
}

/// One score for each pair.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VllmScoreReply")]
pub(crate) struct ScoreReply {
    id: String,
    object: &'static str,
    created: u64,
    model: ModelName,
    data: Vec<PairScore>,
    usage: UsageBody,
}

/// The score of one pair.
#[derive(Debug, Serialize, JsonSchema)]
struct PairScore {
    index: usize,
    object: &'static str,
    /// The reward, through the logistic function unless the request says otherwise.
    score: f64,
}

pub(super) fn describe(version: &'static str) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        operation.id(&format!("vllmScore{version}")).summary("Score pairs of texts").description(
            "Also `data_1` and `data_2`, `text_1` and `text_2`, `queries` and `items`. The first text is the prompt, the \
             second the response.",
        )
    }
}

pub(super) async fn score(call: Call<ScoreBody>) -> Result<Reply<ScoreReply>, Problem> {
    let (call, body) = call.split();
    let activation = call.activation(body.common.activation());
    let text = body.common.text()?;
    let samples = pair_up(body.queries.into_texts(), body.documents.into_texts())?;
    let text = TextOptions { max_response_tokens: response_limit(body.max_tokens_per_doc), ..text };
    let report = call.score(ModelField::named(body.model.as_deref()), samples, text).await?;
    let activation = activation.of(&report);
    let scores = report.results.iter().enumerate();
    let reply = ScoreReply {
        id: ReplyKind::Score.id(&call.id),
        object: "list",
        created: now(),
        model: report.model.clone(),
        data: scores
            .map(|(index, result)| PairScore { index, object: "score", score: activation.apply(result) })
            .collect(),
        usage: UsageBody::new(report.usage),
    };
    Ok(Reply::new(&report, reply))
}

fn pair_up(queries: Vec<String>, documents: Vec<String>) -> Result<Vec<Draft>, Problem> {
    let queries = match <[String; 1]>::try_from(queries) {
        Ok([query]) => vec![query; documents.len()],
        Err(queries) => queries,
    };
    if queries.len() != documents.len() {
        return Err(invalid(format!(
            "there are {} queries for {} documents; send one query, or one for each document",
            queries.len(),
            documents.len()
        )));
    }
    let pairs = queries.into_iter().zip(documents).enumerate();
    let pairs =
        pairs.map(|(index, (query, document))| sample("documents", index, Sample::from_prompt(query, document)));
    Ok(pairs.collect())
}

impl Body for ScoreBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
