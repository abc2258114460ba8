//! Open sets (aggregations, transforms, heads, …) as plain lists that a reader can grep.
//!
//! An extension is one file with an [`Entry`] constant and one line in the list of its layer's `mod.rs`. From the
//! list come the manifest's and the API's schema, the documentation and the parser: none can differ from another.
//!
//! A manifest or a request names an entry by a [`Choice`]: its bare name when the defaults will do
//! (`"worst_case"`), or a table with its name as the only key (`{"uncertainty_weighted": {"lambda": 0.5}}`).

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::unique_keys::UniqueKeys;

/// One member of an open set. `T` is the trait that its implementations share.
pub struct Entry<T: ?Sized + 'static> {
    /// The name in manifests and requests, in `snake_case`.
    pub name: &'static str,
    /// One sentence for the reader of the documentation: what it does and when to want it.
    pub summary: &'static str,
    /// The formula in plain text.
    pub formula: &'static str,
    /// Where the formula comes from.
    pub source: &'static str,
    /// Usable parameters as JSON objects, at least one: the documentation shows them and the laws are tested with them.
    pub examples: &'static [&'static str],
    /// What holds for every input, with the parameters of every example.
    pub laws: &'static [Law],
    /// The schema of its parameters.
    pub parameters: fn(&mut SchemaGenerator) -> Schema,
    /// Builds it from its parameters, an empty object standing for all defaults.
    pub build: fn(Value) -> Result<Box<T>, String>,
}

/// A property that holds whatever the input, up to rounding. Tests run each declared law over random and extreme input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// The order of the members, or of the candidates, doesn't matter.
    PermutationInvariant,
    /// One member's score comes back as it went in.
    OneMemberIsIdentity,
    /// The result lies between the lowest and the highest member.
    WithinMembers,
    /// Raising a member never lowers the result.
    MonotoneInMembers,
    /// The transform never reverses the order of two rewards.
    KeepsOrder,
    /// Every result lies in −1…1.
    Bounded,
    /// The results of one group sum to zero.
    SumsToZero,
    /// The steps sum to zero or less, however many there are.
    StepsSumToAtMostZero,
    /// Two or more steps sum to the first step's score, however many follow.
    StepsSumToTheFirst,
    /// Every result lies in 0…1.
    Probability,
}

impl Law {
    /// The law as a sentence for the documentation.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::PermutationInvariant => "The order of what goes in doesn't matter.",
            Self::OneMemberIsIdentity => "One member's score comes back as it went in.",
            Self::WithinMembers => "The result lies between the lowest and the highest member.",
            Self::MonotoneInMembers => "Raising a member never lowers the result.",
            Self::KeepsOrder => "The order of two rewards is never reversed.",
            Self::Bounded => "Every result lies in -1 to 1.",
            Self::SumsToZero => "The results of one group sum to zero.",
            Self::StepsSumToAtMostZero => "The steps sum to zero or less, however many there are.",
            Self::StepsSumToTheFirst => "Two or more steps sum to the first step's score, however many follow.",
            Self::Probability => "Every result lies in 0 to 1.",
        }
    }
}

/// An entry as data: what the documentation page and the catalogue endpoint show.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Description {
    /// The kind of list, such as "aggregation".
    pub kind: &'static str,
    /// The name in manifests and requests.
    pub name: &'static str,
    /// What it does and when to want it.
    pub summary: &'static str,
    /// The formula in plain text.
    pub formula: &'static str,
    /// Where the formula comes from.
    pub source: &'static str,
    /// Whether the bare name will do, because no parameter is required.
    pub has_defaults: bool,
    /// The JSON schema of the parameters.
    pub parameters: Value,
    /// What holds whatever the input.
    pub laws: &'static [Law],
    /// Usable parameters.
    pub examples: Vec<Value>,
}

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

/// A named list of entries.
pub struct Catalogue<T: ?Sized + 'static> {
    /// What an entry is called in messages, such as "aggregation".
    pub kind: &'static str,
    /// The entries, in the order of the documentation.
    pub entries: &'static [Entry<T>],
}

impl<T: ?Sized> Entry<T> {
    /// Whether the bare name will do: no parameter is required.
    pub fn has_defaults(&self) -> bool {
        (self.build)(Value::Object(Map::new())).is_ok()
    }

    /// The examples as values; a test proves that each is a JSON object that builds.
    pub fn example_values(&self) -> Vec<Value> {
        self.examples.iter().filter_map(|example| serde_json::from_str(example).ok()).collect()
    }
}

impl<T: ?Sized> Catalogue<T> {
    /// Builds what `choice` names.
    ///
    /// # Errors
    /// When no entry has that name, or the entry refuses the parameters.
    pub fn build(&self, choice: &Choice) -> Result<Box<T>, ChoiceError> {
        let entry = self.entries.iter().find(|entry| entry.name == choice.name).ok_or_else(|| {
            let known: Vec<&str> = self.entries.iter().map(|entry| entry.name).collect();
            ChoiceError::Unknown { kind: self.kind, name: choice.name.clone(), known: known.join(", ") }
        })?;
        (entry.build)(choice.parameters.clone()).map_err(|reason| ChoiceError::Parameters {
            kind: self.kind,
            name: choice.name.clone(),
            reason,
        })
    }

    /// Every entry as data, in the order of the list.
    pub fn describe(&self) -> Vec<Description> {
        self.entries
            .iter()
            .map(|entry| Description {
                kind: self.kind,
                name: entry.name,
                summary: entry.summary,
                formula: entry.formula,
                source: entry.source,
                has_defaults: entry.has_defaults(),
                parameters: (entry.parameters)(&mut SchemaGenerator::default()).to_value(),
                laws: entry.laws,
                examples: entry.example_values(),
            })
            .collect()
    }

    /// The schema of a [`Choice`] from this list: a bare name, or a table with the name as its only key.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let mut alternatives = Vec::new();
        let mut bare = Vec::new();
        for entry in self.entries {
            let mut parameters = (entry.parameters)(generator);
            if entry.has_defaults() {
                bare.push(Value::from(entry.name));
            }
            parameters.insert(
                "description".to_owned(),
                Value::from(format!("{} Formula: {}. Source: {}.", entry.summary, entry.formula, entry.source)),
            );
            let mut properties = Map::new();
            properties.insert(entry.name.to_owned(), parameters.to_value());
            alternatives.push(json_schema!({
                "type": "object",
                "title": entry.name,
                "properties": properties,
                "required": [entry.name],
                "additionalProperties": false,
            }));
        }
        if !bare.is_empty() {
            alternatives.insert(0, json_schema!({ "type": "string", "title": "by name", "enum": bare }));
        }
        json_schema!({ "oneOf": alternatives })
    }
}

/// Reads an entry's parameters; meant for [`Entry::build`].
///
/// # Errors
/// When a key is unknown, missing or of the wrong type; the text says which.
pub fn parameters<P: DeserializeOwned>(value: Value) -> Result<P, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The schema of an entry's parameters; meant for [`Entry::parameters`].
///
/// The types that parameters are made of are written out in place: their names mean something in their own file only,
/// and would collide among the definitions of a whole API.
pub fn parameter_schema<P: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let settings = generator.settings().clone().with(|settings| settings.inline_subschemas = true);
    P::json_schema(&mut settings.into_generator())
}

/// What a finite number of at least zero must satisfy; for [`Entry::build`].
///
/// # Errors
/// When `value` is negative or not finite; the text names the parameter.
pub fn not_negative(name: &str, value: f64) -> Result<f64, String> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(format!("{name} must be a finite number of at least 0, found {value}"))
    }
}

/// What a finite number above zero must satisfy; for [`Entry::build`].
///
/// # Errors
/// When `value` is zero, negative or not finite; the text names the parameter.
pub fn positive(name: &str, value: f64) -> Result<f64, String> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(format!("{name} must be a finite number above 0, found {value}"))
    }
}

/// What a finite number must satisfy; for [`Entry::build`].
///
/// # Errors
/// When `value` is not finite; the text names the parameter.
pub fn finite(name: &str, value: f64) -> Result<f64, String> {
    if value.is_finite() { Ok(value) } else { Err(format!("{name} must be a finite number, found {value}")) }
}

/// What a share or a probability must satisfy; for [`Entry::build`].
///
/// # Errors
/// When `value` lies outside 0…1; the text names the parameter.
pub fn share(name: &str, value: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{name} must lie in 0 to 1, found {value}")) }
}

/// Parameters of an entry that has none.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

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
}
