//! The mean less a penalty for the members' disagreement.
//!
//! `R = R̄ − λ · (1/k) Σ (Rᵢ − R̄)²` — uncertainty-weighted optimisation, Coste et al. 2023, eq. 4 and 5. The
//! penalty is the population variance, not the standard deviation that some implementations use. The authors' PPO
//! code divides by `k − 1`; so does `ddof = 1`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aggregation, AggregationError, Members, MembersShape};
use crate::{
    domain::{
        NotNegative, Reward,
        catalogue::{Law, Rule},
    },
    numeric::DegreesOfFreedom,
};

/// The uncertainty-weighted score.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UncertaintyWeighted {
    /// The weight of the variance, at least 0.
    lambda: NotNegative,
    /// 0 divides by the number of members, as the paper does; 1 by one less.
    #[serde(default)]
    ddof: DegreesOfFreedom,
}

impl Rule for UncertaintyWeighted {
    const NAME: &'static str = "uncertainty_weighted";
    const SUMMARY: &'static str = "The mean less lambda times the members' population variance; lambda 0 is the mean. \
        The paper uses 0.5 for Best-of-N and 0.1 for PPO.";
    const FORMULA: &'static str = "R = mean_i R_i - lambda * (1/(k-ddof)) sum_i (R_i - mean)^2";
    const SOURCE: &'static str =
        "Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization, eq. 4 and 5";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"lambda": 0.5}"#, r#"{"lambda": 0.1, "ddof": 1}"#, r#"{"lambda": 0}"#];
    const LAWS: &'static [Law] = &[Law::PermutationInvariant, Law::OneMemberIsIdentity];

    type Parameters = Self;
}

impl Aggregation for UncertaintyWeighted {
    fn gives_probabilities(&self, _: bool) -> bool {
        // What is taken off may lead below 0.
        false
    }

    fn check(&self, shape: &MembersShape) -> Result<(), AggregationError> {
        shape.at_least(self.ddof.least()).map(|_| ())
    }

    fn aggregate(&self, members: &Members) -> Result<Reward, AggregationError> {
        let penalty = members.weighted_variance(self.lambda, self.ddof)?;
        Ok(Reward::new(members.mean() - penalty)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{aggregate, assert_close, members, rule},
        *,
    };

    fn weighted(lambda: f64, values: &[f64]) -> f64 {
        aggregate(&format!(r#"{{"uncertainty_weighted":{{"lambda":{lambda}}}}}"#), values)
    }

    #[test]
    fn golden_g1() {
        let a = [1.0, 2.0, 0.5, 1.5, 1.0];
        assert_close(weighted(0.5, &a), 1.07);
        assert_close(weighted(0.1, &a), 1.174);
        assert_close(weighted(1.0, &a), 0.94);
        let b = [-0.3, 0.8, 2.6, -1.1];
        assert_close(weighted(0.5, &b), -0.4625);
        assert_close(weighted(0.1, &b), 0.3075);
        assert_close(weighted(0.5, &[0.7]), 0.7);
        assert_close(aggregate(r#"{"uncertainty_weighted":{"lambda":0.5,"ddof":1}}"#, &a), 1.0375);
    }

    #[test]
    fn golden_g1d_the_rules_pick_different_candidates() {
        let candidates = [[3.0, 3.0, 0.5], [1.5, 1.4, 1.6], [2.4, 1.0, 2.0]];
        let expected = [1.472222, 1.496667, 1.626667];
        for (members, expected) in candidates.iter().zip(expected) {
            assert_close(weighted(0.5, members), expected);
        }
        assert_close(weighted(0.1, &candidates[0]), 2.027778);
        assert_close(aggregate("\"mean\"", &candidates[0]), 2.166667);
        assert_close(aggregate("\"worst_case\"", &candidates[1]), 1.4);
    }

    #[test]
    fn lambda_zero_is_the_mean_even_where_the_variance_overflows() {
        for values in [[1.0, 2.0, 0.5], [1e300, -1e300, 1e299]] {
            assert_eq!(weighted(0.0, &values).to_bits(), aggregate("\"mean\"", &values).to_bits());
        }
    }

    #[test]
    fn a_sample_variance_of_one_member_is_refused_when_it_is_read() {
        let rule = rule(r#"{"uncertainty_weighted":{"lambda":0.5,"ddof":1}}"#).unwrap();
        let error = rule.check(&MembersShape::of(1)).unwrap_err();
        assert!(error.to_string().contains("at least 2"), "{error}");
        assert!(rule.aggregate(&members(&[0.7])).is_err());
        assert!(rule.check(&MembersShape::of(2)).is_ok());
    }

    #[test]
    fn lambda_is_required_and_not_negative() {
        for bad in [
            "\"uncertainty_weighted\"",
            r#"{"uncertainty_weighted":{"lambda":-0.1}}"#,
            r#"{"uncertainty_weighted":{"lambda":"half"}}"#,
            r#"{"uncertainty_weighted":{"lamda":0.5}}"#,
            r#"{"uncertainty_weighted":{"lambda":0.5,"ddof":2}}"#,
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
