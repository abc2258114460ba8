//! The fields of a body that nothing reads: each could change a score, so none is passed over in silence.
//!
//! A field of a dialect's clients is one of three: honoured, which its body's type says; harmless, which the dialect's
//! [table](KnownFields) and its page say; or refused by its name, with advice where the table has some.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::invalid;
use crate::api::problem::Problem;

/// What a dialect says of fields that its bodies don't read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownFields {
    /// Those that leave scores alone, such as a name for the server's records.
    pub(crate) harmless: &'static [&'static str],
    /// What to do instead of sending some of the others.
    pub(crate) advice: &'static [(&'static str, &'static str)],
}

/// A body of a dialect's, which keeps what nothing reads.
pub(crate) trait Body: DeserializeOwned + Send + 'static {
    /// What is left of it; none where all that it holds is read or sent back.
    fn unread(&self) -> Option<&Unread>;
}

/// What is left of a body once everything known was taken out of it; a struct flattens it in as its last field.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unread(Map<String, Value>);

impl From<Map<String, Value>> for Unread {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

impl Unread {
    /// All but a field that says what is done anyway.
    pub(crate) fn without(mut self, field: &str, usual: &[&str]) -> Self {
        if self.0.get(field).and_then(Value::as_str).is_some_and(|said| usual.contains(&said)) {
            self.0.shift_remove(field);
        }
        self
    }

    /// All but those that were read before.
    pub(crate) fn without_read(mut self, fields: &[&str]) -> Self {
        self.0.retain(|name, _| !fields.contains(&name.as_str()));
        self
    }

    /// Refuses every field that asks for something and isn't known to leave scores alone.
    pub(crate) fn check(&self, known: KnownFields) -> Result<(), Problem> {
        self.check_as("", known)
    }

    /// The same of a part of a body, whose fields are told with its name before them.
    pub(crate) fn check_as(&self, part: &str, known: KnownFields) -> Result<(), Problem> {
        let asks = |value: &Value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        };
        let fields = self.0.iter().filter(|(name, value)| asks(value) && !known.harmless.contains(&name.as_str()));
        let names: Vec<&str> = fields.map(|(name, _)| name.as_str()).collect();
        let advised = names.iter().find_map(|name| known.advice.iter().find(|(field, _)| field == name));
        match (names.as_slice(), advised) {
            ([], _) => Ok(()),
            (_, Some((name, advice))) => {
                Err(invalid(format!("the field \"{part}{name}\" is not served here: {advice}")))
            }
            ([only], None) => Err(invalid(format!(
                "the field \"{part}{only}\" is not served here and could change a score; leave it out"
            ))),
            (several, None) => Err(invalid(format!(
                "the fields {} are not served here and could change a score; leave them out",
                several.iter().map(|name| format!("{part}{name}")).collect::<Vec<_>>().join(", ")
            ))),
        }
    }
}
