//! `POST /score`: how well second texts, or images, answer first ones.

use aide::transform::TransformOperation;
use karat_engine::{engine::Draft, text::TextOptions};
use karat_rules::domain::{Image, Message, ModelName, Role, Sample};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{Common, UsageBody, response_limit};
use crate::api::{
    dialects::parts::{Body, Call, Document, ModelField, Parts, Unread, invalid, now, sample},
    images,
    problem::Problem,
    reply::Reply,
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

/// One text or several, of which each may be parts of text and images.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "texts must be a string, an object whose \"content\" is a list of parts of text and images, or a list of \
                 these; an image is data:image/png;base64,…"
)]
enum OneOrMany {
    One(Side),
    Many(Vec<Side>),
}

/// A side of a pair.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "VllmPairSide")]
enum Side {
    Text(Document),
    Parts(Parts),
}

/// What a side says and shows.
type Shown = (String, Vec<Image>);

impl OneOrMany {
    fn into_sides(self, place: &str) -> Result<Vec<Shown>, Problem> {
        let sides = match self {
            Self::One(side) => vec![side],
            Self::Many(sides) => sides,
        };
        let apart = sides.into_iter().enumerate().map(|(index, side)| match side {
            Side::Text(text) => Ok((text.into_text(), Vec::new())),
            Side::Parts(parts) => parts.apart().map_err(|reason| invalid(format!("{place}[{index}]: {reason}"))),
        });
        apart.collect()
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
        operation.id(&format!("vllmScore{version}")).summary("Score pairs of texts, or of texts and images").description(
            "Also `data_1` and `data_2`, `text_1` and `text_2`, `queries` and `items`. The first text is the prompt, the \
             second the response, which may be an image: `{\"content\": [{\"type\": \"image_url\", …}]}`.",
        )
    }
}

pub(super) async fn score(call: Call<ScoreBody>) -> Result<Reply<ScoreReply>, Problem> {
    let (call, body) = call.split();
    let activation = call.activation(body.common.activation());
    let text = body.common.text()?;
    let samples = pair_up(body.queries.into_sides("queries")?, body.documents.into_sides("documents")?)?;
    let text = TextOptions { max_response_tokens: response_limit(body.max_tokens_per_doc), ..text };
    let report = call.score(ModelField::named(body.model.as_deref()), samples, text).await?;
    let activation = activation.of(&report);
    let scores = report.results.iter().enumerate();
    let reply = ScoreReply {
        id: format!("score-{}", call.id),
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

fn pair_up(queries: Vec<Shown>, documents: Vec<Shown>) -> Result<Vec<Draft>, Problem> {
    let queries = match <[Shown; 1]>::try_from(queries) {
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
    Ok(pairs.map(|(index, (query, document))| pair(index, query, document)).collect())
}

/// A text that answers another, or an image that was made for a text and like the images beside it.
fn pair(index: usize, query: Shown, document: Shown) -> Draft {
    if query.1.is_empty() && document.1.is_empty() {
        return sample("documents", index, Sample::from_prompt(query.0, document.0));
    }
    let turn = |role, (content, images): Shown| (Message { role, content }, images);
    images::sample(vec![turn(Role::User, query), turn(Role::Assistant, document)])
        .map_err(|reason| format!("documents[{index}]: {reason}"))
}

impl Body for ScoreBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}
