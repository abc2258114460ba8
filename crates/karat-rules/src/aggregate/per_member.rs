//! Numbers that belong to members: a list in the members' order, or a table by the objectives' names.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{AggregationError, Members, MembersShape};

/// One number for each member or named objective.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PerMember {
    /// In the members' order.
    Ordered(Vec<f64>),
    /// By the objectives' names.
    Named(IndexMap<String, f64>),
}

impl PerMember {
    /// Refuses to hold no number at all; `name` is the parameter's.
    pub(super) fn check_some(&self, name: &str) -> Result<(), String> {
        let none = match self {
            Self::Ordered(list) => list.is_empty(),
            Self::Named(table) => table.is_empty(),
        };
        if none { Err(format!("{name} must hold one number for each member")) } else { Ok(()) }
    }

    pub(super) fn sum(&self) -> f64 {
        match self {
            Self::Ordered(list) => list.iter().sum(),
            Self::Named(table) => table.values().sum(),
        }
    }

    pub(super) fn none_below_zero(&self) -> bool {
        match self {
            Self::Ordered(list) => list.iter().all(|number| *number >= 0.0),
            Self::Named(table) => table.values().all(|number| *number >= 0.0),
        }
    }

    /// Whether there is one number for each member of `shape`.
    pub(super) fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        let count = shape.flat()?;
        self.resolve(count, shape.objectives.as_deref()).map(|_| ())
    }

    /// The numbers in the order of `members`.
    pub(super) fn of(&self, members: &Members) -> Result<Vec<f64>, AggregationError> {
        self.resolve(members.values().len(), members.objectives())
    }

    fn resolve(&self, count: usize, names: Option<&[String]>) -> Result<Vec<f64>, AggregationError> {
        match (self, names) {
            (Self::Ordered(list), _) if list.len() == count => Ok(list.clone()),
            (Self::Ordered(list), _) => Err(AggregationError::unsuitable(
                format!("there are {count} members and {} numbers for them", list.len()),
                "write one number for each member",
            )),
            (Self::Named(_), None) => Err(AggregationError::unsuitable(
                "the numbers are named and the members are not",
                "write them as a list in the members' order, or name the head's objectives",
            )),
            (Self::Named(table), Some(names)) => {
                let unknown = table.keys().find(|key| !names.contains(key));
                let missing = names.iter().find(|name| !table.contains_key(*name));
                if let Some(name) = unknown.or(missing) {
                    return Err(AggregationError::unsuitable(
                        format!("the objectives are {} and {name:?} is not on both sides", names.join(", ")),
                        "write one number for each objective's name",
                    ));
                }
                Ok(names.iter().filter_map(|name| table.get(name).copied()).collect())
            }
        }
    }
}
