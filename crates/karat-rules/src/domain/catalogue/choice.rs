//! What a manifest or request asks for of a list: an entry by its name, and its parameters.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::domain::unique_keys::UniqueKeys;

/// What a manifest or request asks for: a name and its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The entry's name.
    pub name: String,
    /// Its parameters as written, an empty object when only the name was.
    pub parameters: Value,
}

/// Why a choice can't be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No entry has that name.
    #[error("there is no {kind} {name:?}; write one of: {known}")]
    Unknown {
        /// The kind of list, as a word for the message.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// All names of the list.
        known: String,
    },
    /// The entry refuses its parameters.
    #[error("{kind} {name:?}: {reason}")]
    Parameters {
        /// The kind of list, as a word for the message.
        kind: &'static str,
        /// The entry.
        name: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
}

impl Choice {
    /// A choice with default parameters.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), parameters: Value::Object(Map::new()) }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.parameters {
            Value::Object(parameters) if parameters.is_empty() => Ok(()),
            parameters => write!(f, " {parameters}"),
        }
    }
}

impl Serialize for Choice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.parameters {
            Value::Object(parameters) if parameters.is_empty() => self.name.serialize(serializer),
            parameters => {
                let mut map = Map::new();
                map.insert(self.name.clone(), parameters.clone());
                map.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let shape = "a name, or a table with the name as its only key";
        match UniqueKeys::deserialize(deserializer)?.0 {
            Value::String(name) => Ok(Self { name, parameters: Value::Object(Map::new()) }),
            Value::Object(map) if map.len() == 1 => match map.into_iter().next() {
                Some((name, parameters @ Value::Object(_))) => Ok(Self { name, parameters }),
                Some((name, other)) => Err(D::Error::custom(format!(
                    "the parameters of {name:?} must be a table, found {}",
                    type_name(&other)
                ))),
                None => Err(D::Error::custom(format!("expected {shape}"))),
            },
            Value::Object(map) => Err(D::Error::custom(format!("expected {shape}, found {} keys", map.len()))),
            other => Err(D::Error::custom(format!("expected {shape}, found {}", type_name(&other)))),
        }
    }
}

impl JsonSchema for Choice {
    fn schema_name() -> Cow<'static, str> {
        "Choice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A name, or a table with the name as its only key and the parameters as its value.",
            "oneOf": [{ "type": "string" }, { "type": "object", "minProperties": 1, "maxProperties": 1 }],
        })
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::value::MapDeserializer;

    use super::*;

    fn parse(json: &str) -> Result<Choice, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_choice_is_a_name_or_a_table_of_one() {
        assert_eq!(parse("\"mean\""), Ok(Choice::named("mean")));
        let choice = parse(r#"{"uncertainty_weighted":{"lambda":0.5}}"#).unwrap();
        assert_eq!(choice.name, "uncertainty_weighted");
        assert_eq!(choice.parameters["lambda"], 0.5);
        for bad in ["3", "[]", "{}", r#"{"a":{},"b":{}}"#, r#"{"clip":3}"#, "null", r#"{"clip":{"min":0,"min":1}}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_that_is_not_finite_never_reaches_a_rule() {
        for bad in [f64::NAN, f64::INFINITY] {
            let bounds = BTreeMap::from([("max", bad)]);
            let table = MapDeserializer::<_, serde::de::value::Error>::new([("clip", bounds)].into_iter());
            let refused = Choice::deserialize(table).unwrap_err().to_string();
            assert!(refused.contains("finite number"), "{refused}");
        }
    }
}
