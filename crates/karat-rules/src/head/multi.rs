//! Several logits a response out of one forward pass: an ensemble of heads on one trunk, or several objectives.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, HeadShape, Layout, distinct, layout::arrangement, rewards};
use crate::domain::{
    Dimension, RowTensor, TensorSpec, TokenizedInput,
    catalogue::{Entry, parameter_schema, parameters},
};

pub(super) const ENTRY: Entry<dyn Head> = Entry {
    name: "multi",
    summary: "K raw logits a response out of one forward pass: the members of an ensemble on one trunk, or K named \
              objectives. Output [batch, K].",
    formula: "R_i = logit_i, i = 1..K",
    source: "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization",
    examples: &[r#"{"members": 5}"#, r#"{"objectives": ["helpful", "harmless"]}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let outputs = match parameters(value)? {
            Parameters { members: Some(members), objectives: None } if members > 0 => Outputs::Members(members),
            Parameters { members: None, objectives: Some(names) } => {
                distinct("objectives", &names)?;
                Outputs::Objectives(names.into())
            }
            _ => return Err("name either members, at least 1, or objectives".to_owned()),
        };
        Ok(Box::new(Multi { outputs }))
    },
};

/// Parameters of the multi head; exactly one of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How many members of an ensemble the graph's output holds.
    #[serde(default)]
    #[schemars(range(min = 1))]
    members: Option<usize>,
    /// The names of the objectives that the graph's output holds, in its order.
    #[serde(default)]
    objectives: Option<Vec<String>>,
}

#[derive(Debug, Clone)]
enum Outputs {
    Members(usize),
    Objectives(Arc<[String]>),
}

#[derive(Debug, Clone)]
struct Multi {
    outputs: Outputs,
}

impl Multi {
    fn count(&self) -> usize {
        match &self.outputs {
            Outputs::Members(count) => *count,
            Outputs::Objectives(names) => names.len(),
        }
    }
}

impl Head for Multi {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(self.count())]]
    }

    fn shape(&self) -> HeadShape {
        match &self.outputs {
            Outputs::Members(count) => HeadShape::of(*count),
            Outputs::Objectives(names) => HeadShape { objectives: Some(names.clone()), ..HeadShape::of(1) },
        }
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        match (output.shape.as_slice(), &self.outputs) {
            ([_, Dimension::Fixed(count)], Outputs::Members(_)) => Some(format!("write members = {count}")),
            ([_, Dimension::Fixed(count)], Outputs::Objectives(_)) => Some(format!("name {count} objectives")),
            _ => None,
        }
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        arrangement(self.name(), &self.layouts(), input, rows)?;
        let scores = rewards(rows[0].values())?;
        Ok(match &self.outputs {
            Outputs::Members(_) => HeadOutput::Members(scores),
            Outputs::Objectives(names) => HeadOutput::Objectives { names: names.clone(), scores, reward: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, output, row};

    #[test]
    fn the_number_of_members_must_be_the_graphs() {
        assert!(head(r#"{"multi":{"members":5}}"#).unwrap().check(&[&output(&[5])]).is_ok());
        let error = head(r#"{"multi":{"members":4}}"#).unwrap().check(&[&output(&[5])]).unwrap_err();
        assert!(error.to_string().contains("members = 5"), "{error}");
    }

    #[test]
    fn objectives_keep_their_names() {
        let head = head(r#"{"multi":{"objectives":["helpful","harmless"]}}"#).unwrap();
        let read = head.read(&input(3), &[row(&[2], &[1.0, -1.0])]).unwrap();
        assert_eq!(read.objectives().unwrap()[1], "harmless");
        assert_eq!(read.members().len(), 2);
    }

    #[test]
    fn members_and_objectives_exclude_each_other() {
        for bad in ["{}", r#"{"members":0}"#, r#"{"members":2,"objectives":["a","b"]}"#, r#"{"objectives":["a","a"]}"#]
        {
            assert!(head(&format!(r#"{{"multi":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
