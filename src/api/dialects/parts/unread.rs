//! The fields of a body that nothing reads: each could change a score, so none is passed over in silence.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::invalid;
use crate::api::problem::Problem;

/// What is left of a body once everything known was taken out of it; a struct flattens it in as its last field.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unread(Map<String, Value>);

impl Unread {
    /// Refuses every field that asks for something and isn't known to leave scores alone.
    pub(crate) fn check(&self, harmless: &[&str]) -> Result<(), Problem> {
        let asks = |value: &Value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        };
        let fields = self.0.iter().filter(|(name, value)| asks(value) && !harmless.contains(&name.as_str()));
        let names: Vec<&str> = fields.map(|(name, _)| name.as_str()).collect();
        match names.as_slice() {
            [] => Ok(()),
            [only] => {
                Err(invalid(format!("the field {only:?} is not served here and could change a score; leave it out")))
            }
            several => Err(invalid(format!(
                "the fields {} are not served here and could change a score; leave them out",
                several.join(", ")
            ))),
        }
    }
}
