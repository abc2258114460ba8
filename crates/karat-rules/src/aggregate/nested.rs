//! Two rules in a row: one over each objective's members, one over the objectives.
//!
//! `R = g(f(R₁₁ … R₁ₖ), …, f(Rₒ₁ … Rₒₖ))`: conservative within an objective, a trade-off or a logical AND between them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape};
use crate::domain::{
    Reward,
    catalogue::{Choice, Rule},
};

/// Parameters of the nested rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// The rule over the members of one objective.
    members: Choice,
    /// The rule over the objectives.
    objectives: Choice,
}

#[derive(Debug)]
pub(super) struct Nested {
    members: Box<dyn Aggregation>,
    objectives: Box<dyn Aggregation>,
}

impl Rule for Nested {
    const NAME: &'static str = "nested";
    const SUMMARY: &'static str = "One rule over each objective's members, then another over the objectives: for an \
        ensemble of models that each give several named objectives.";
    const FORMULA: &'static str = "R = objectives(members(R_11 .. R_1k), .., members(R_o1 .. R_ok))";
    const SOURCE: &'static str = "this project's";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"members": "worst_case", "objectives": "sum"}"#,
        r#"{"members": {"uncertainty_weighted": {"lambda": 0.5}},
            "objectives": {"weighted": {"weights": {"helpful": 2, "harmless": 1}}}}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Nested {
    type Error = String;

    fn try_from(Parameters { members, objectives }: Parameters) -> Result<Self, String> {
        if [&members, &objectives].iter().any(|choice| choice.name == Self::NAME) {
            return Err("a nested rule has two levels, members and objectives; it can't hold another".to_owned());
        }
        let build = |choice: &Choice| super::CATALOGUE.build(choice).map_err(|error| error.to_string());
        let rules = Self { members: build(&members)?, objectives: build(&objectives)? };
        if rules.members.needs_sensitivity() || rules.objectives.needs_sensitivity() {
            return Err("the sensitivity is one of the whole reward: write the rule that weighs by it alone".to_owned());
        }
        Ok(rules)
    }
}

impl Nested {
    fn needs_objectives() -> AggregationError {
        AggregationError::unsuitable(
            "the model gives no named objectives",
            "name them in the head, or write the members' rule alone",
        )
    }

    fn objectives_of(&self, members: &Members) -> Result<Members, AggregationError> {
        let names = members.objectives().ok_or_else(Self::needs_objectives)?;
        let scores = self.by_objective(members)?;
        Members::new(&scores).and_then(|scores| scores.with_objectives(names.into())).ok_or_else(Self::needs_objectives)
    }
}

impl Aggregation for Nested {
    fn gives_probabilities(&self, before: bool) -> bool {
        self.objectives.gives_probabilities(self.members.gives_probabilities(before))
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        if shape.objectives.is_none() {
            return Err(Self::needs_objectives());
        }
        self.members.check(&MembersShape { objectives: None, candidates: 1, ..shape.clone() })?;
        self.objectives.check(&MembersShape { members: 1, deviations: false, ..shape.clone() })
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        self.objectives.aggregate(&self.objectives_of(members)?)
    }

    fn aggregate_group(&self, candidates: &[Members]) -> Result<Vec<Reward>, AggregationError> {
        let objectives: Result<Vec<_>, _> = candidates.iter().map(|members| self.objectives_of(members)).collect();
        self.objectives.aggregate_group(&objectives?)
    }

    fn by_objective(&self, members: &Members) -> Result<Vec<Reward>, AggregationError> {
        let count = members.objectives().ok_or_else(Self::needs_objectives)?.len();
        (0..count).filter_map(|index| members.of_objective(index)).map(|each| self.members.aggregate(&each)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::testing::{assert_close, members, rule},
        *,
    };

    #[test]
    fn members_become_objectives_and_objectives_one_reward() {
        let names: Arc<[String]> = Arc::from(["helpful".to_owned(), "harmless".to_owned()]);
        let members = members(&[3.0, 1.0, -1.0, 5.0]).with_objectives(names).unwrap();
        let weights = r#"{"weighted":{"weights":{"harmless":2,"helpful":1}}}"#;
        let rule = rule(&format!(r#"{{"nested":{{"members":"worst_case","objectives":{weights}}}}}"#)).unwrap();
        assert!(rule.check(&members.shape(1)).is_ok());
        let objectives: Vec<f64> = rule.by_objective(&members).unwrap().iter().map(|reward| reward.get()).collect();
        assert!(objectives.iter().zip([1.0, -1.0]).all(|(actual, expected)| actual.total_cmp(&expected).is_eq()));
        assert_close(rule.aggregate(&members).unwrap().get(), -1.0);
    }

    #[test]
    fn what_can_not_apply_is_refused_when_it_is_read() {
        let nested = rule(r#"{"nested":{"members":"mean","objectives":"mean"}}"#).unwrap();
        assert!(nested.check(&MembersShape::of(3)).is_err());
        assert!(nested.aggregate(&members(&[1.0])).is_err());
        let twice = r#"{"nested":{"members":{"nested":{"members":"mean","objectives":"mean"}},"objectives":"mean"}}"#;
        assert!(rule(twice).is_err());
        assert!(rule(r#"{"nested":{"members":"average","objectives":"mean"}}"#).is_err());
        let sensitive =
            r#"{"nested":{"members":{"confidence_weighted":{"uncertainty":"sensitivity"}},"objectives":"mean"}}"#;
        assert!(rule(sensitive).unwrap_err().contains("whole reward"));
        let objectives = Some(Arc::from(["a".to_owned(), "b".to_owned()]));
        let shape = MembersShape { objectives, ..MembersShape::of(1) };
        let sample = r#"{"nested":{"members":{"uncertainty_weighted":{"lambda":1,"ddof":1}},"objectives":"mean"}}"#;
        assert!(rule(sample).unwrap().check(&shape).is_err());
    }
}
