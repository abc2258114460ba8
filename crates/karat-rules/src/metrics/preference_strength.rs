//! How strongly an ensemble agrees with a preference label.
//!
//! `d_m = r_m(chosen) − r_m(rejected)`, `μ = mean d`, `σ` its population deviation (Wang et al. 2024, "Secrets of RLHF in
//! Large Language Models Part II: Reward Modeling"). Pairs with a very negative mean are probably mislabelled, pairs
//! around zero ambiguous, pairs with a very large one overfit. The paper cuts its own data at the lowest 20 % (flip),
//! 20–40 % (ambiguous) and highest 10 % (smooth labels); such cuts depend on the data, so they are required, as strengths
//! or as shares of the pairs that were sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, equally_long, finite, not_empty};
use crate::{
    domain::{Share, catalogue::Rule},
    numeric::{DegreesOfFreedom, mean, quantile, variance},
};

/// Pairs scored by an ensemble.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreferenceStrength {
    /// At least one.
    pairs: Vec<Pair>,
    /// Where the suggestions change.
    cuts: Cuts,
}

impl Rule for PreferenceStrength {
    const NAME: &'static str = "preference_strength";
    const SUMMARY: &'static str = "How strongly an ensemble agrees with each preference label, and what to do about \
        it: flip the label, leave the pair out as ambiguous, keep it, or smooth its label.";
    const FORMULA: &'static str = "mu = mean_m (r_m(chosen) - r_m(rejected)); sigma = population deviation over the \
        members; flip if mu < flip, ambiguous if mu < ambiguous, smooth if mu >= smooth, else keep";
    const SOURCE: &'static str = "Wang et al. 2024, Secrets of RLHF in Large Language Models Part II: Reward Modeling";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"pairs": [{"chosen": [1, 0.6, 1.4, 0.2], "rejected": [0.4, 0.9, 0.6, -0.1]}],
            "cuts": {"strengths": {"flip": -0.5, "ambiguous": 0, "smooth": 3}}}"#,
        r#"{"pairs": [{"chosen": [1, 2], "rejected": [0, 0]}, {"chosen": [0, 0], "rejected": [1, 2]}],
            "cuts": {"shares": {"flip": 0.2, "ambiguous": 0.4, "smooth": 0.9}}}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        not_empty("pairs", &self.pairs)?;
        self.pairs.iter().try_for_each(|pair| equally_long(&pair.chosen, &pair.rejected, 1))?;
        let (Cuts::Strengths(thresholds) | Cuts::Shares(thresholds)) = self.cuts;
        if !(thresholds.flip <= thresholds.ambiguous && thresholds.ambiguous <= thresholds.smooth) {
            return Err("cuts must ascend: flip, ambiguous, smooth".to_owned());
        }
        if let Cuts::Shares(shares) = self.cuts {
            Share::named("cuts.shares.flip", shares.flip)?;
            Share::named("cuts.shares.smooth", shares.smooth)?;
        }
        Ok(())
    }
}

/// The scores that an ensemble's members gave one pair.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// Of the chosen response, one a member.
    chosen: Vec<f64>,
    /// Of the rejected response, in the same order.
    rejected: Vec<f64>,
}

/// Where the suggestions change.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Cuts {
    /// At these mean strengths.
    Strengths(Thresholds),
    /// At the mean strengths that cut off these shares of the pairs, counted from the weakest; the paper uses 0.2, 0.4
    /// and 0.9.
    Shares(Thresholds),
}

/// Ascending cuts.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    /// Below it the label is probably wrong.
    flip: f64,
    /// Below it the pair says little.
    ambiguous: f64,
    /// From it on the pair invites overfitting.
    smooth: f64,
}

/// How strongly an ensemble agrees with one preference label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Strength {
    /// The mean difference of chosen and rejected.
    pub mean: f64,
    /// The population deviation of the difference over the members.
    pub deviation: f64,
}

impl Strength {
    /// The strength of a pair by its members' scores; none unless there are as many, at least one.
    #[must_use]
    pub fn of(chosen: &[f64], rejected: &[f64]) -> Option<Self> {
        equally_long(chosen, rejected, 1).ok()?;
        let differences: Vec<f64> = chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect();
        let deviation = variance(&differences, DegreesOfFreedom::Population)?.sqrt();
        Some(Self { mean: mean(&differences), deviation })
    }
}

/// What to do about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Suggestion {
    Flip,
    Ambiguous,
    Keep,
    Smooth,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Suggested {
    #[serde(flatten)]
    strength: Strength,
    suggestion: Suggestion,
}

impl Metric for PreferenceStrength {
    fn compute(&self) -> Result<Value, MetricError> {
        let strengths: Vec<Strength> =
            self.pairs.iter().filter_map(|pair| Strength::of(&pair.chosen, &pair.rejected)).collect();
        for strength in &strengths {
            finite("a strength", strength.mean)?;
            finite("a deviation", strength.deviation)?;
        }
        let means: Vec<f64> = strengths.iter().map(|strength| strength.mean).collect();
        let cuts = match self.cuts {
            Cuts::Strengths(thresholds) => thresholds,
            Cuts::Shares(shares) => {
                let at = |share: f64| quantile(&means, share).unwrap_or(f64::NAN);
                Thresholds { flip: at(shares.flip), ambiguous: at(shares.ambiguous), smooth: at(shares.smooth) }
            }
        };
        let suggest = |mean: f64| match mean {
            mean if mean < cuts.flip => Suggestion::Flip,
            mean if mean < cuts.ambiguous => Suggestion::Ambiguous,
            mean if mean >= cuts.smooth => Suggestion::Smooth,
            _ => Suggestion::Keep,
        };
        let suggested: Vec<Suggested> = strengths
            .iter()
            .map(|strength| Suggested { strength: *strength, suggestion: suggest(strength.mean) })
            .collect();
        answer(serde_json::json!({ "pairs": suggested }))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{metric, number},
        *,
    };
    use crate::numeric::testing::assert_close;

    #[test]
    fn golden_g6() {
        let strength = Strength::of(&[1.0, 0.6, 1.4, 0.2], &[0.4, 0.9, 0.6, -0.1]).unwrap();
        assert_close(strength.mean, 0.35);
        assert_close(strength.deviation, 0.415331);
        let result = metric(&format!(r#"{{"preference_strength":{}}}"#, PreferenceStrength::EXAMPLES[0])).unwrap();
        assert_close(number(&result, "/pairs/0/mean"), 0.35);
        assert_eq!(result["pairs"][0]["suggestion"], "keep");
    }

    #[test]
    fn suggestions_follow_the_cuts() {
        let pairs: Vec<String> = (0..10).map(|mean| format!(r#"{{"chosen":[{mean}],"rejected":[0]}}"#)).collect();
        let cuts = r#"{"shares":{"flip":0.2,"ambiguous":0.4,"smooth":0.9}}"#;
        let json = format!(r#"{{"preference_strength":{{"pairs":[{}],"cuts":{cuts}}}}}"#, pairs.join(","));
        let result = metric(&json).unwrap();
        let suggestions: Vec<&str> =
            result["pairs"].as_array().unwrap().iter().map(|pair| pair["suggestion"].as_str().unwrap()).collect();
        assert_eq!(suggestions[..4], ["flip", "flip", "ambiguous", "ambiguous"]);
        assert_eq!(suggestions[4..], ["keep", "keep", "keep", "keep", "keep", "smooth"]);
    }

    #[test]
    fn cuts_are_required_and_ascend() {
        let pairs = r#""pairs":[{"chosen":[1],"rejected":[0]}]"#;
        for bad in [
            "",
            r#","cuts":{"strengths":{"flip":1,"ambiguous":0,"smooth":3}}"#,
            r#","cuts":{"shares":{"flip":0.1,"ambiguous":0.4,"smooth":1.5}}"#,
        ] {
            assert!(metric(&format!(r#"{{"preference_strength":{{{pairs}{bad}}}}}"#)).is_err(), "{bad}");
        }
    }
}
