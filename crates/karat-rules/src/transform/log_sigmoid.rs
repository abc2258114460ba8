//! Log-sigmoid of a reward centred at a reference: improving what is good already earns ever less.
//!
//! `u = log σ(r − r_ref)` — Wang et al. 2024, "Transforming and Combining Rewards for Aligning Large Language
//! Models". A Bradley-Terry score has an arbitrary offset for each prompt, so the reference is required: a constant, the
//! score of a canned response, or a statistic of the prompt's other responses. The paper takes the 85th percentile of
//! the reference policy's rewards; a later reimplementation takes it of a normal distribution with their mean and
//! deviation. The paper's own estimator could not be verified.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Needs, References, Refusal, Signal, Transform, outcomes};
use crate::{
    domain::{
        Share,
        catalogue::{Law, Rule},
    },
    numeric::{self, DegreesOfFreedom},
};

/// The log-sigmoid.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogSigmoid {
    /// The reward of a response that is just good enough, on the model's own scale.
    reference: Reference,
}

impl Rule for LogSigmoid {
    const NAME: &'static str = "log_sigmoid";
    const SUMMARY: &'static str = "The log-probability of beating a reference: saturates above it, so that there is \
        little to gain by exploiting the top of the scale, and stays steep below it.";
    const FORMULA: &'static str = "u = log sigmoid(r - reference)";
    const SOURCE: &'static str =
        "Wang et al. 2024, Transforming and Combining Rewards for Aligning Large Language Models";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"reference": 1.4}"#,
        r#"{"reference": "canned"}"#,
        r#"{"reference": {"mean": {"of": "group"}}}"#,
        r#"{"reference": {"quantile": {"level": 0.85, "of": "references"}}}"#,
        r#"{"reference": {"normal_quantile": {"level": 0.85, "ddof": 1, "of": "references"}}}"#,
    ];
    const LAWS: &'static [Law] = &[Law::KeepsOrder];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        match self.reference {
            Reference::Of(Statistic::Quantile { level, .. }) => {
                Share::named("level", level)?;
            }
            Reference::Of(Statistic::NormalQuantile { level, .. }) if !(level > 0.0 && level < 1.0) => {
                return Err(format!("level must lie between 0 and 1, both excluded, found {level}"));
            }
            Reference::Constant(_) | Reference::Of(_) => {}
        }
        Ok(())
    }
}

/// A number, or where to take it from.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "write a number, \"canned\", or one of mean, quantile and normal_quantile with its parameters"
)]
enum Reference {
    /// The same for every prompt.
    Constant(f64),
    /// Taken from rewards of the prompt's responses.
    Of(Statistic),
}

/// A number taken from rewards of the prompt's responses.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Statistic {
    /// The score of a canned response, sent as the only reference.
    Canned,
    /// The mean.
    Mean {
        /// Whose rewards.
        of: Source,
    },
    /// A quantile by linear interpolation (type 7).
    Quantile {
        /// Which quantile, from 0 to 1.
        level: f64,
        /// Whose rewards.
        of: Source,
    },
    /// A quantile of the normal distribution with the rewards' mean and deviation.
    NormalQuantile {
        /// Which quantile, strictly between 0 and 1.
        level: f64,
        /// 0 for the population's deviation, 1 for the sample's.
        #[serde(default)]
        ddof: DegreesOfFreedom,
        /// Whose rewards.
        of: Source,
    },
}

/// Whose rewards a statistic is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// The samples that are transformed together.
    Group,
    /// The reference rewards that were sent along.
    References,
}

impl Statistic {
    fn source(self) -> Source {
        match self {
            Self::Canned => Source::References,
            Self::Mean { of } | Self::Quantile { of, .. } | Self::NormalQuantile { of, .. } => of,
        }
    }

    fn least(self) -> usize {
        match self {
            Self::NormalQuantile { .. } => 2,
            Self::Canned | Self::Mean { .. } | Self::Quantile { .. } => 1,
        }
    }

    /// `None` of too few rewards.
    fn of(self, rewards: &[f64]) -> Option<f64> {
        match self {
            Self::Canned | Self::Mean { .. } => (!rewards.is_empty()).then(|| numeric::mean(rewards)),
            Self::Quantile { level, .. } => numeric::quantile(rewards, level),
            Self::NormalQuantile { level, ddof, .. } => {
                let deviation = numeric::variance(rewards, ddof)?.sqrt();
                Some(numeric::mean(rewards) + deviation * numeric::normal_quantile(level))
            }
        }
    }
}

impl Transform for LogSigmoid {
    fn needs(&self) -> Needs {
        match self.reference {
            Reference::Constant(_) => Needs::default(),
            Reference::Of(Statistic::Canned) => Needs { references: References::One, ..Needs::default() },
            Reference::Of(statistic) => match statistic.source() {
                // A group of one would be its own reference, and every reward would become log σ(0).
                Source::Group => Needs::GROUP,
                Source::References => Needs { references: References::AtLeast(statistic.least()), ..Needs::default() },
            },
        }
    }

    fn apply(&self, group: &mut [Signal], context: &Context) -> Result<(), Refusal> {
        let reference = match self.reference {
            Reference::Constant(constant) => Some(constant),
            Reference::Of(statistic) => match statistic.source() {
                Source::Group => statistic.of(&outcomes(group)?),
                Source::References => statistic.of(context.references()),
            },
        };
        let reference =
            reference.ok_or_else(|| Refusal("there are too few rewards to take a reference from".to_owned()))?;
        for number in group.iter_mut().flat_map(Signal::numbers_mut) {
            *number = numeric::log_sigmoid(*number - reference);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            TransformError,
            testing::{assert_all_close, chain, group, outcome},
        },
        *,
    };

    const REWARDS: [f64; 4] = [-3.0, 0.5, 1.4, 4.0];

    fn references() -> Context {
        Context::default().with_references(vec![-1.0, 0.0, 0.5, 1.0, 2.0]).unwrap()
    }

    #[test]
    fn golden_g4() {
        let centred = r#"[{"log_sigmoid":{"reference":1.4}}]"#;
        let at_quantile = [-4.412203, -1.241154, -0.693147, -0.071645];
        assert_all_close(&REWARDS.map(|r| outcome(centred, r)), &at_quantile);
        let centred = r#"[{"log_sigmoid":{"reference":0.5}}]"#;
        let at_mean = [-3.529750, -0.693147, -0.341154, -0.029750];
        assert_all_close(&REWARDS.map(|r| outcome(centred, r)), &at_mean);

        let quantile = r#"[{"log_sigmoid":{"reference":{"quantile":{"level":0.85,"of":"references"}}}}]"#;
        assert_all_close(&group(quantile, &REWARDS, &references()).unwrap(), &at_quantile);
        let mean = r#"[{"log_sigmoid":{"reference":{"mean":{"of":"references"}}}}]"#;
        assert_all_close(&group(mean, &REWARDS, &references()).unwrap(), &at_mean);
    }

    #[test]
    fn golden_g4_normal_quantiles() {
        for (ddof, expected) in [(0, 1.536433), (1, 1.658768)] {
            let json = format!(r#"{{"normal_quantile":{{"level":0.85,"ddof":{ddof},"of":"references"}}}}"#);
            let statistic: Statistic = serde_json::from_str(&json).unwrap();
            assert_all_close(&[statistic.of(references().references()).unwrap()], &[expected]);
        }
    }

    #[test]
    fn the_group_or_a_canned_response_can_be_the_reference() {
        let of_group = r#"[{"log_sigmoid":{"reference":{"quantile":{"level":0.85,"of":"group"}}}}]"#;
        let rewards = group(of_group, &[-1.0, 0.0, 0.5, 1.0, 2.0], &Context::default()).unwrap();
        assert_all_close(&rewards[2..3], &[-1.241154]);
        let canned = Context::default().with_references(vec![1.4]).unwrap();
        let by_canned = r#"[{"log_sigmoid":{"reference":"canned"}}]"#;
        assert_all_close(&group(by_canned, &[0.5], &canned).unwrap(), &[-1.241154]);
        assert!(matches!(group(by_canned, &[0.5], &references()), Err(TransformError::Missing { .. })));
    }

    #[test]
    fn a_reference_that_can_not_be_taken_is_refused_when_it_is_read() {
        for bad in [
            r#"{"mean":{"of":"group"}}"#,
            r#"{"quantile":{"level":0.85,"of":"references"}}"#,
            r#"{"normal_quantile":{"level":1,"of":"references"}}"#,
            r#"{"quantile":{"level":1.5,"of":"references"}}"#,
            r#"{"mean":{}}"#,
            "\"mean\"",
            "null",
        ] {
            assert!(chain(&format!(r#"[{{"log_sigmoid":{{"reference":{bad}}}}}]"#), false).is_err(), "{bad}");
        }
    }
}
