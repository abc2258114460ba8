//! Pays less for a response the more often it was seen.
//!
//! `r' = r / N^β` for a response seen `N` times (Zheng et al. 2024, "Online Intrinsic Rewards for Decision Making Agents
//! from Large Language Model Feedback"). The argument default of the authors' code is `β = 3`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, Refusal, Signal, Transform};
use crate::domain::catalogue::{Entry, not_negative, parameter_schema, parameters};

pub(super) const ENTRY: Entry<dyn Transform> = Entry {
    name: "novelty_decay",
    summary: "Divides a reward by a power of how often the response was seen: repeating what paid once soon pays \
              nothing. Needs the count of each response.",
    formula: "r' = r / count^beta",
    source: "Zheng et al. 2024, Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback",
    examples: &["{}", r#"{"beta": 0.5}"#],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { beta } = parameters(value)?;
        Ok(Box::new(NoveltyDecay { beta: not_negative("beta", beta)? }))
    },
};

/// Parameters of the decay.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// How fast the reward decays with the count, at least 0.
    #[serde(default = "three")]
    #[schemars(range(min = 0.0))]
    beta: f64,
}

fn three() -> f64 {
    3.0
}

#[derive(Debug, Clone, Copy)]
struct NoveltyDecay {
    beta: f64,
}

impl Transform for NoveltyDecay {
    fn needs(&self) -> Needs {
        Needs { counts: true, ..Needs::default() }
    }

    fn apply(&self, group: &mut [Signal], context: &Context) -> Result<(), Refusal> {
        for (signal, count) in group.iter_mut().zip(context.counts()) {
            let divisor = count.powf(self.beta);
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
