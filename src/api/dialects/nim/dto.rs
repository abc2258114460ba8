//! Request and response of NIM's ranking.

use karat_engine::text::{TextOptions, Truncation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    dialects::parts::{Body, KnownFields, RankedDocument, Scores, Unread},
    problem::Problem,
};

/// A query and the passages to rank.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "NimRankingBody")]
pub(super) struct RankingBody {
    /// The model; `--default-model` stands in for one that isn't known.
    #[serde(default)]
    pub(super) model: Option<String>,
    /// What is asked.
    pub(super) query: Text,
    /// What may answer it.
    pub(super) passages: Vec<Text>,
    /// What happens to pairs that are too long; without it they are handled as the model's manifest says.
    #[serde(default)]
    truncate: Option<Truncate>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// A text in an object.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "NimText")]
pub(super) struct Text {
    /// The text.
    text: String,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

impl Text {
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// What happens to a pair that is too long.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "NimTruncate")]
enum Truncate {
    /// It is refused.
    None,
    /// Its passage is cut at the end.
    End,
}

impl RankingBody {
    /// How texts are cut.
    pub(super) fn text(&self) -> TextOptions {
        let truncation = self.truncate.map(|truncate| match truncate {
            Truncate::None => Truncation::Refuse,
            Truncate::End => Truncation::ResponseEnd,
        });
        TextOptions { truncation, ..TextOptions::default() }
    }

    /// Refuses what stands beside a text, such as an image.
    pub(super) fn check_parts(&self) -> Result<(), Problem> {
        self.query.unread.check_as("query.", KnownFields::default())?;
        let mut passages = self.passages.iter().enumerate();
        passages.try_for_each(|(index, passage)| {
            passage.unread.check_as(&format!("passages[{index}]."), KnownFields::default())
        })
    }
}

impl Body for RankingBody {
    fn unread(&self) -> Option<&Unread> {
        Some(&self.unread)
    }
}

/// The passages, best first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NimRankingReply")]
pub(super) struct RankingReply {
    rankings: Vec<Rank>,
    usage: Usage,
}

/// One passage.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NimRank")]
struct Rank {
    /// Its place in the request.
    index: usize,
    /// Its reward.
    logit: f64,
}

/// What the request cost.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NimUsage")]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl RankingReply {
    pub(super) fn new(report: &Scores, ranked: &[RankedDocument]) -> Self {
        let tokens = report.usage.tokens;
        Self {
            rankings: ranked.iter().map(|ranked| Rank { index: ranked.index, logit: ranked.score }).collect(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}
