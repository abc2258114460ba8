//! Open sets (aggregations, transforms, heads, …) as plain lists that a reader can grep.
//!
//! An extension is one file with a [`Rule`] and one line in the list of its layer's `mod.rs`. From the list come the
//! manifest's and the API's schema, the documentation and the parser: none can differ from another.
//!
//! A manifest or a request names an entry by a [`Choice`]: its bare name when the defaults will do
//! (`"worst_case"`), or a table with its name as the only key (`{"uncertainty_weighted": {"lambda": 0.5}}`).

mod choice;
mod rule;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};

pub use choice::{Choice, ChoiceError};
pub use rule::{Law, Named, Rule};

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

/// A named list of entries.
pub struct Catalogue<T: ?Sized + 'static> {
    /// What an entry is called in messages, such as "aggregation".
    pub kind: &'static str,
    /// The entries, in the order of the documentation.
    pub entries: &'static [Entry<T>],
}

impl<T: ?Sized> Entry<T> {
    /// The entry of the rule `R`.
    pub(crate) const fn of<R: Rule>() -> Self
    where
        Box<T>: From<R>,
    {
        Self {
            name: R::NAME,
            summary: R::SUMMARY,
            formula: R::FORMULA,
            source: R::SOURCE,
            examples: R::EXAMPLES,
            laws: R::LAWS,
            parameters: rule::schema::<R>,
            build: |value| rule::build::<R>(value).map(Box::from),
        }
    }

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

    /// Every entry with what each of its examples builds, for the tests of a list's laws.
    #[cfg(test)]
    pub(crate) fn each_example(&self) -> impl Iterator<Item = (&'static Entry<T>, Box<T>)> {
        self.entries.iter().flat_map(|entry| {
            let examples = entry.example_values();
            assert_eq!(examples.len(), entry.examples.len(), "{}: an example is no JSON", entry.name);
            examples.into_iter().map(move |example| (entry, (entry.build)(example).unwrap()))
        })
    }

    /// What a choice written as JSON builds.
    #[cfg(test)]
    pub(crate) fn read(&self, json: &str) -> Result<Box<T>, String> {
        let choice: Choice = serde_json::from_str(json).unwrap();
        self.build(&choice).map_err(|error| error.to_string())
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
