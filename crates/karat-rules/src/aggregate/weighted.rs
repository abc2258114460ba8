//! A weighted sum of the members or of named objectives.
//!
//! `R = Σ wᵢ Rᵢ`; normalised, `R = Σ wᵢ Rᵢ / Σ wᵢ`. Weights are the caller's: published models state theirs, such as
//! Nemotron's 0.3, 0.74, 0.46, 0.47 and −0.33 over helpfulness, correctness, coherence, complexity and verbosity.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape, per_member::PerMember};
use crate::domain::{Positive, Reward, catalogue::Rule};

/// The weighted sum.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Weighted {
    /// A list in the members' order, or a table by the objectives' names.
    weights: PerMember,
    /// Whether to divide by the weights' sum, which must then be above 0.
    #[serde(default)]
    normalise: bool,
}

impl Rule for Weighted {
    const NAME: &'static str = "weighted";
    const SUMMARY: &'static str = "A weighted sum of the members, or of named objectives. Weights may be negative, as \
        for verbosity; normalise divides by their sum.";
    const FORMULA: &'static str = "R = sum_i w_i R_i, or sum_i w_i R_i / sum_i w_i";
    const SOURCE: &'static str = "standard practice; the first example is the model card of Nemotron-4-340B-Reward";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"weights": [0.3, 0.74, 0.46, 0.47, -0.33]}"#,
        r#"{"weights": {"helpful": 2, "harmless": 1}, "normalise": true}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        self.weights.check_some("weights")?;
        if self.normalise {
            Positive::named("the sum of the weights", self.weights.sum())?;
        }
        Ok(())
    }
}

impl Aggregation for Weighted {
    fn gives_probabilities(&self, before: bool) -> bool {
        before && self.normalise && self.weights.none_below_zero()
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        self.weights.check(shape)
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let weights = self.weights.of(members)?;
        let divisor = if self.normalise { self.weights.sum() } else { 1.0 };
        let terms = weights.iter().zip(members.values()).map(|(weight, value)| weight / divisor * value);
        Ok(Reward::new(terms.sum())?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::testing::{aggregate, assert_close, members, rule},
        *,
    };

    fn names() -> Arc<[String]> {
        Arc::from(["safe".to_owned(), "helpful".to_owned()])
    }

    #[test]
    fn weights_are_summed_or_averaged() {
        assert_close(aggregate(r#"{"weighted":{"weights":[1,-0.5]}}"#, &[3.0, 2.0]), 2.0);
        assert_close(aggregate(r#"{"weighted":{"weights":[1,3],"normalise":true}}"#, &[3.0, 1.0]), 1.5);
    }

    #[test]
    fn named_weights_follow_the_names_not_the_order() {
        let members = members(&[3.0, 1.0]).with_objectives(names()).unwrap();
        let rule = rule(r#"{"weighted":{"weights":{"helpful":10,"safe":1}}}"#).unwrap();
        assert_close(rule.aggregate(&members).unwrap().get(), 13.0);
        assert!(rule.check(&members.shape(1)).is_ok());
        assert!(rule.check(&MembersShape::of(2)).is_err());
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_when_they_are_read() {
        let weighted = rule(r#"{"weighted":{"weights":[1,2]}}"#).unwrap();
        assert!(weighted.check(&MembersShape::of(3)).unwrap_err().to_string().contains("3 members and 2 numbers"));
        let shape = MembersShape { objectives: Some(names()), ..MembersShape::of(1) };
        for bad in [r#"{"safe":1}"#, r#"{"safe":1,"helpful":1,"funny":1}"#, r#"{"safe":1,"helpfull":1}"#] {
            assert!(rule(&format!(r#"{{"weighted":{{"weights":{bad}}}}}"#)).unwrap().check(&shape).is_err(), "{bad}");
        }
        for bad in ["[]", "[1,null]"] {
            assert!(rule(&format!(r#"{{"weighted":{{"weights":{bad}}}}}"#)).is_err(), "{bad}");
        }
        assert!(rule(r#"{"weighted":{"weights":[1,-1],"normalise":true}}"#).is_err());
    }
}
