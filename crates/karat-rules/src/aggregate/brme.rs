//! A blend of the most certain member and the worst one.
//!
//! `R = w · μ_{argmin σ} + (1 − w) · min μ` over members that give a mean `μ` and a deviation `σ` — Bayesian reward
//! model ensembles, Yan et al. 2024, "Reward-Robust RLHF in LLMs". The nominal reward is that of the member with the
//! lowest deviation, not the ensemble's mean. The paper takes its minimum over expectations; the minimum for each
//! sample is what a server can compute. Accounts differ on which term the weight belongs to, so the field is named for
//! it: 1 is nominal only.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape};
use crate::domain::{
    Reward, Share,
    catalogue::{Law, Rule},
};

/// The blend.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Brme {
    /// The weight of the most certain member, from 0 (worst case only) to 1 (nominal only).
    nominal_weight: Share,
}

impl Rule for Brme {
    const NAME: &'static str = "brme";
    const SUMMARY: &'static str = "A blend of the most certain member's score with the lowest one, for members that \
        give a mean and a deviation. Weight 1 is the most certain member alone, 0 the worst case; the paper found 0.2 \
        and 0.4 best.";
    const FORMULA: &'static str = "R = nominal_weight * mu_{argmin sigma} + (1 - nominal_weight) * min_i mu_i";
    const SOURCE: &'static str = "Yan et al. 2024, Reward-Robust RLHF in LLMs";
    const EXAMPLES: &'static [&'static str] = &[r#"{"nominal_weight": 0.4}"#, r#"{"nominal_weight": 1}"#];
    const LAWS: &'static [Law] = &[Law::OneMemberIsIdentity, Law::WithinMembers];

    type Parameters = Self;
}

impl Brme {
    fn needs_deviations() -> AggregationError {
        AggregationError::unsuitable(
            "the members have no deviations",
            "brme needs a model with a gaussian head; choose \"worst_case\" or \"uncertainty_weighted\" instead",
        )
    }
}

impl Aggregation for Brme {
    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        shape.flat()?;
        if shape.deviations { Ok(()) } else { Err(Self::needs_deviations()) }
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let deviations = members.deviations().ok_or_else(Self::needs_deviations)?;
        let pairs = members.values().iter().zip(deviations);
        // `min_by` keeps the first of equal deviations: ties go to the lowest index.
        let nominal = pairs.min_by(|a, b| a.1.total_cmp(b.1)).map_or(members.minimum(), |(value, _)| *value);
        let weight = self.nominal_weight.get();
        Ok(Reward::new(weight * nominal + (1.0 - weight) * members.minimum())?)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_close, members, rule},
        *,
    };

    #[test]
    fn golden_g5() {
        let members = members(&[1.2, 0.8, 1.6, 1.0, 0.4]).with_deviations(vec![0.5, 0.2, 0.9, 0.3, 0.6]).unwrap();
        for (weight, expected) in [(0.0, 0.4), (0.2, 0.48), (0.4, 0.56), (1.0, 0.8)] {
            let rule = rule(&format!(r#"{{"brme":{{"nominal_weight":{weight}}}}}"#)).unwrap();
            assert_close(rule.aggregate(&members).unwrap().get(), expected);
        }
    }

    #[test]
    fn members_without_deviations_are_refused_when_the_rule_is_read() {
        let rule = rule(r#"{"brme":{"nominal_weight":0.4}}"#).unwrap();
        assert!(rule.check(&MembersShape::of(5)).is_err());
        assert!(rule.check(&MembersShape { deviations: true, ..MembersShape::of(5) }).is_ok());
        assert!(rule.aggregate(&members(&[1.0])).is_err());
    }
}
