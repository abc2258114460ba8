//! The GPUs that a graph runs on.

use std::{borrow::Cow, collections::BTreeSet, num::NonZeroUsize};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// GPUs by their numbers, in order: `0`, or `[0, 1]` for a replica of the graph on each.
///
/// Invariant: at least one, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Devices(Vec<u32>);

impl Devices {
    /// Those GPUs; `None` when there are none or one is named twice.
    #[must_use]
    pub(crate) fn new(numbers: Vec<u32>) -> Option<Self> {
        let different: BTreeSet<u32> = numbers.iter().copied().collect();
        (!numbers.is_empty() && different.len() == numbers.len()).then_some(Self(numbers))
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.0.len()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The GPU of a graph's session number `session`: they take turns.
    #[must_use]
    pub(crate) fn of_session(&self, session: usize) -> u32 {
        self.0.get(session % self.count()).copied().unwrap_or_default()
    }
}

impl Default for Devices {
    /// The first GPU.
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_u32(*one),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a GPU's number, or a list of them")]
        enum Written {
            One(u32),
            Several(Vec<u32>),
        }
        let numbers = match Written::deserialize(deserializer)? {
            Written::One(number) => vec![number],
            Written::Several(numbers) => numbers,
        };
        Self::new(numbers).ok_or_else(|| de::Error::custom("name at least one GPU, and none twice"))
    }
}

impl JsonSchema for Devices {
    fn schema_name() -> Cow<'static, str> {
        "Devices".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = || json_schema!({ "type": "integer", "format": "uint32", "minimum": 0 });
        json_schema!({
            "description": "The number of a GPU, or a list of numbers: the graph then runs on each of them.",
            "oneOf": [number(), { "type": "array", "items": number(), "minItems": 1, "uniqueItems": true }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_a_list_of_different_ones() {
        let read = |json: &str| serde_json::from_str::<Devices>(json).map_err(|error| error.to_string());
        for json in ["3", "[0,1]"] {
            assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
        }
        assert_eq!(read("[2]").unwrap(), read("2").unwrap());
        for (json, part) in [("[]", "at least one"), ("[1,1]", "none twice"), ("\"all\"", "a GPU's number")] {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn sessions_take_turns() {
        let devices = Devices::new(vec![4, 7]).unwrap();
        assert_eq!([0, 1, 2, 3].map(|session| devices.of_session(session)), [4, 7, 4, 7]);
    }
}
