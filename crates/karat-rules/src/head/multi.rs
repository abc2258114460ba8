//! Several logits a response out of one forward pass: an ensemble of heads on one trunk, or several objectives.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Head, HeadError, HeadOutput, HeadShape, Layout,
    layout::{one_row, width},
    parameters::Names,
    rewards,
};
use crate::domain::{Count, RowTensor, TensorSpec, TokenizedInput, catalogue::Rule};

/// Parameters of the multi head; exactly one of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// How many members of an ensemble the graph's output holds.
    #[serde(default)]
    members: Option<Count>,
    /// The names of the objectives that the graph's output holds, in its order.
    #[serde(default)]
    objectives: Option<Vec<String>>,
}

#[derive(Debug, Clone)]
enum Outputs {
    Members(usize),
    Objectives(Names),
}

#[derive(Debug, Clone)]
pub(super) struct Multi {
    outputs: Outputs,
}

impl Rule for Multi {
    const NAME: &'static str = "multi";
    const SUMMARY: &'static str = "K raw logits a response out of one forward pass: the members of an ensemble on one \
        trunk, or K named objectives. Output [batch, K].";
    const FORMULA: &'static str = "R_i = logit_i, i = 1..K";
    const SOURCE: &'static str = "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization";
    const EXAMPLES: &'static [&'static str] = &[r#"{"members": 5}"#, r#"{"objectives": ["helpful", "harmless"]}"#];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Multi {
    type Error = String;

    fn try_from(parameters: Parameters) -> Result<Self, String> {
        let outputs = match parameters {
            Parameters { members: Some(members), objectives: None } => Outputs::Members(members.get()),
            Parameters { members: None, objectives: Some(names) } => {
                Outputs::Objectives(Names::named("objectives", names)?)
            }
            _ => return Err("name either members, at least 1, or objectives".to_owned()),
        };
        Ok(Self { outputs })
    }
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
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(self.count())]]
    }

    fn shape(&self) -> HeadShape {
        match &self.outputs {
            Outputs::Members(count) => HeadShape::of(*count),
            Outputs::Objectives(names) => HeadShape { objectives: Some(names.shared()), ..HeadShape::of(1) },
        }
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        let count = width(output)?;
        Some(match self.outputs {
            Outputs::Members(_) => format!("write members = {count}"),
            Outputs::Objectives(_) => format!("name {count} objectives"),
        })
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let scores = rewards(one_row(self, input, rows)?)?;
        Ok(match &self.outputs {
            Outputs::Members(_) => HeadOutput::Members(scores),
            Outputs::Objectives(names) => HeadOutput::Objectives { names: names.shared(), scores, reward: None },
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
