//! How far two reward models are apart, beyond what a policy could notice.
//!
//! STARC (Skalse et al. 2023): canonicalise, normalise, compare. For single responses, where an episode is one action,
//! this project uses the bandit form: `c = r − mean over the prompt's responses`, `s = c/‖c‖₂` (`c` itself when it is
//! zero), `d = ‖s₁ − s₂‖₂` from 0 to 2. Where both are non-constant `d = √(2 (1 − ρ))`. Half of it is the EPIC distance
//! (Gleave et al. 2020).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, equally_long, finite, not_empty};
use crate::{domain::catalogue::Rule, numeric::mean};

/// The rewards that two models gave the same responses, by prompt.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewardDistance {
    /// At least one.
    prompts: Vec<Prompt>,
}

impl Rule for RewardDistance {
    const NAME: &'static str = "reward_distance";
    const SUMMARY: &'static str = "How far two reward models are apart, from 0 to 2, blind to each prompt's offset and \
        to the overall scale: 0 for models that train the same policy, 2 for opposite ones. EPIC is half of it.";
    const FORMULA: &'static str =
        "c = r - mean over the prompt; s = c / |c|_2, or c if it is 0; STARC d = |s_1 - s_2|_2; EPIC = d / 2";
    const SOURCE: &'static str = "Skalse et al. 2023, STARC: A General Framework For Quantifying Differences Between \
        Reward Functions; Gleave et al. 2020, Quantifying Differences in Reward Functions (the bandit form is this \
        project's)";
    const EXAMPLES: &'static [&'static str] = &[r#"{"prompts": [{"first": [1, 2, 3, 4], "second": [2, 4, 6, 9]}]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        not_empty("prompts", &self.prompts)?;
        self.prompts.iter().try_for_each(|prompt| equally_long(&prompt.first, &prompt.second, 1))
    }
}

/// The rewards that two models gave the responses to one prompt.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Prompt {
    /// The first model's, one a response.
    first: Vec<f64>,
    /// The second model's, in the same order.
    second: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Distance {
    starc: f64,
    epic: f64,
    /// Undefined where a model is constant on every prompt.
    correlation: Option<f64>,
}

/// Rewards without their prompts' offsets and their scale: a unit vector, or zeros for a constant model.
fn canonical(prompts: &[&[f64]]) -> Vec<f64> {
    let mut centred = Vec::new();
    for rewards in prompts {
        let middle = mean(rewards);
        let largest = rewards.iter().fold(0.0_f64, |largest, reward| largest.max(reward.abs()));
        // Rounding leaves a trace of difference between equal rewards; it is no signal.
        let spread = rewards.iter().map(|reward| reward - middle);
        centred.extend(spread.map(|c| if c.abs() <= largest * 1e-15 { 0.0 } else { c }));
    }
    let largest = centred.iter().fold(0.0_f64, |largest, c| largest.max(c.abs()));
    if largest > 0.0 {
        centred.iter_mut().for_each(|c| *c /= largest);
        let norm = centred.iter().map(|c| c * c).sum::<f64>().sqrt();
        centred.iter_mut().for_each(|c| *c /= norm);
    }
    centred
}

/// The bandit form of the STARC distance of two models' rewards, by prompt, from 0 to 2.
fn bandit_distance(first: &[&[f64]], second: &[&[f64]]) -> f64 {
    let squares = canonical(first).into_iter().zip(canonical(second)).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f64>().sqrt()
}

impl Metric for RewardDistance {
    fn compute(&self) -> Result<Value, MetricError> {
        let first: Vec<&[f64]> = self.prompts.iter().map(|prompt| prompt.first.as_slice()).collect();
        let second: Vec<&[f64]> = self.prompts.iter().map(|prompt| prompt.second.as_slice()).collect();
        let starc = finite("the distance", bandit_distance(&first, &second))?;
        let varies = |prompts: &[&[f64]]| canonical(prompts).iter().any(|c| *c != 0.0);
        let correlation = (varies(&first) && varies(&second)).then(|| 1.0 - starc * starc / 2.0);
        answer(Distance { starc, epic: starc / 2.0, correlation })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::testing::{metric, number},
        *,
    };
    use crate::numeric::testing::assert_close;

    fn distance(second: &str) -> Value {
        metric(&format!(r#"{{"reward_distance":{{"prompts":[{{"first":[1,2,3,4],"second":{second}}}]}}}}"#)).unwrap()
    }

    #[test]
    fn golden_g15() {
        for (second, starc) in [("[2,4,6,9]", 0.106050), ("[10,12,14,16]", 0.0), ("[4,3,2,1]", 2.0), ("[5,5,5,5]", 1.0)]
        {
            let result = distance(second);
            assert_close(number(&result, "/starc"), starc);
            assert_close(number(&result, "/epic"), starc / 2.0);
        }
        assert_close(number(&distance("[2,4,6,9]"), "/epic"), 0.053025);
        assert!(distance("[5,5,5,5]")["correlation"].is_null());
        assert_close(number(&distance("[4,3,2,1]"), "/correlation"), -1.0);
    }

    #[test]
    fn each_prompts_offset_is_removed() {
        let prompts = r#"[{"first":[0,1],"second":[100,101]},{"first":[5,7],"second":[-3,-1]}]"#;
        let result = metric(&format!(r#"{{"reward_distance":{{"prompts":{prompts}}}}}"#)).unwrap();
        assert_close(number(&result, "/starc"), 0.0);
    }

    proptest! {
        #[test]
        fn scale_and_offset_do_not_count(
            rewards in prop::collection::vec(-100.0..100.0_f64, 2..20), scale in 0.1..10.0_f64, offset in -50.0..50.0_f64,
        ) {
            let moved: Vec<f64> = rewards.iter().map(|reward| scale * reward + offset).collect();
            let d = bandit_distance(&[&rewards], &[&moved]);
            prop_assert!(d < 1e-6, "{d}");
            let opposite: Vec<f64> = rewards.iter().map(|reward| -reward).collect();
            prop_assert!(bandit_distance(&[&rewards], &[&opposite]) <= 2.0 + 1e-12);
        }
    }
}
