//! Pays less for a response the more often it was seen.
//!
//! `r' = r / N^β` for a response seen `N` times (Zheng et al. 2024, "Online Intrinsic Rewards for Decision Making Agents
//! from Large Language Model Feedback"). The argument default of the authors' code is `β = 3`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform};
use crate::domain::{NotNegative, catalogue::Rule};

/// The decay.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoveltyDecay {
    /// How fast the reward decays with the count, at least 0.
    #[serde(default = "three")]
    beta: NotNegative,
}

impl Rule for NoveltyDecay {
    const NAME: &'static str = "novelty_decay";
    const SUMMARY: &'static str = "Divides a reward by a power of how often the response was seen: repeating what paid \
        once soon pays nothing. Needs the count of each response.";
    const FORMULA: &'static str = "r' = r / count^beta";
    const SOURCE: &'static str =
        "Zheng et al. 2024, Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback";
    const EXAMPLES: &'static [&'static str] = &["{}", r#"{"beta": 0.5}"#];

    type Parameters = Self;
}

fn three() -> NotNegative {
    const { NotNegative::constant(3.0) }
}

impl Transform for NoveltyDecay {
    fn needs(&self) -> Needs {
        Needs { counts: true, ..Needs::default() }
    }

    fn apply(&self, group: &mut [Signal], context: &Context) -> Result<(), Refusal> {
        for (signal, count) in group.iter_mut().zip(context.counts()) {
            let divisor = count.powf(self.beta.get());
            signal.numbers_mut().iter_mut().for_each(|number| *number /= divisor);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Context,
        testing::{assert_all_close, group},
    };

    #[test]
    fn golden_g19_with_the_environments_reward() {
        let context = Context::default().with_counts(&[1, 2, 4]).unwrap();
        // The environment gives 1, weighted by 0.1; the annotator's reward is weighted by 0.4.
        let chain = r#"["novelty_decay",{"affine":{"scale":0.4,"offset":0.1}}]"#;
        assert_all_close(&group(chain, &[1.0; 3], &context).unwrap(), &[0.5, 0.15, 0.10625]);
    }
}
