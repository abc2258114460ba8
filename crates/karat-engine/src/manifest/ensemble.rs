//! The key `ensemble` as it is written: a list of models, or a table of adapters.

use std::{fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use karat_rules::domain::catalogue::Choice;

use super::document::MemberSection;

/// What a composite is made of.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum EnsembleSection {
    /// Models of this repository, each with weights of its own.
    Models(Vec<MemberSection>),
    /// Adapters over one base, whose weights are in memory once.
    Adapters(AdaptersSection),
}

/// Adapters that are served together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdaptersSection {
    /// The adapters, which become the members in this order: folders, from the model's folder, or models of the Hub as
    /// `hub:org/name`. All have the same base, and each gives one score. The head is `scalar`, or `multi` where the
    /// members are objectives.
    pub adapters: Vec<PathBuf>,
}

impl Default for EnsembleSection {
    fn default() -> Self {
        Self::Models(Vec::new())
    }
}

impl EnsembleSection {
    /// The models, none where there are adapters; and the adapters, where there are some.
    pub(crate) fn split(self) -> (Vec<MemberSection>, Option<Vec<PathBuf>>) {
        match self {
            Self::Models(models) => (models, None),
            Self::Adapters(AdaptersSection { adapters }) => (Vec::new(), Some(adapters)),
        }
    }
}

impl<'de> Deserialize<'de> for EnsembleSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        // By its kind, so that a mistake within is told as what it is.
        impl<'de> Visitor<'de> for Either {
            type Value = EnsembleSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of models, or a table with adapters")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, models: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(models)).map(EnsembleSection::Models)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
                AdaptersSection::deserialize(MapAccessDeserializer::new(table)).map(EnsembleSection::Adapters)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// What the head of an ensemble of adapters can be.
pub(super) const OF_MEMBERS: &str = "write head = \"scalar\", or multi with a member or an objective for each";

/// The head of several adapters: what is said of each is meant of all of them.
pub(super) fn of_members(written: Choice, members: usize) -> Option<Choice> {
    match written.name.as_str() {
        "scalar" => Some(Choice { name: "multi".to_owned(), parameters: serde_json::json!({ "members": members }) }),
        "multi" => Some(written),
        _ => None,
    }
}
