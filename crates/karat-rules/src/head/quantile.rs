//! Quantiles of the distribution of rewards that a response might earn.
//!
//! Quantile reward models (Dorka 2024, "Quantile Regression for Distributional Reward Models in RLHF") estimate a
//! distribution instead of a point. The reward is the mean of the quantiles, or one of them: a low level is cautious.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, Layout, layout::one_row, rewards};
use crate::{
    domain::{Reward, RowTensor, TokenizedInput, catalogue::Rule},
    numeric::mean,
};

/// Parameters of the quantile head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// The levels of the graph's quantiles, ascending, in its order.
    levels: Vec<f64>,
    /// Which number is the reward.
    reward: Chosen,
}

/// Which number is the reward.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Chosen {
    /// The mean of the quantiles.
    Mean,
    /// The quantile at one of the levels.
    Level(f64),
}

#[derive(Debug, Clone)]
pub(super) struct Quantile {
    levels: Arc<[f64]>,
    chosen: Option<usize>,
}

impl Rule for Quantile {
    const NAME: &'static str = "quantile";
    const SUMMARY: &'static str = "Quantiles of the reward's distribution; the reward is their mean, or the one at a \
        level: a low level is cautious. Output [batch, Q].";
    const FORMULA: &'static str = "R = mean_q v_q, or v_level";
    const SOURCE: &'static str = "Dorka 2024, Quantile Regression for Distributional Reward Models in RLHF";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"levels": [0.1, 0.5, 0.9], "reward": "mean"}"#,
        r#"{"levels": [0.1, 0.5, 0.9], "reward": {"level": 0.1}}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Quantile {
    type Error = String;

    fn try_from(Parameters { levels, reward }: Parameters) -> Result<Self, String> {
        let inside = levels.iter().all(|level| *level > 0.0 && *level < 1.0);
        if levels.is_empty() || !inside || !levels.is_sorted_by(|a, b| a < b) {
            return Err("levels must ascend between 0 and 1, both excluded, and name at least one".to_owned());
        }
        let chosen = match reward {
            Chosen::Mean => None,
            Chosen::Level(level) => {
                let place = levels.iter().position(|known| known.total_cmp(&level).is_eq());
                Some(place.ok_or_else(|| format!("reward.level {level} is none of the levels"))?)
            }
        };
        Ok(Self { levels: levels.into(), chosen })
    }
}

impl Head for Quantile {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(self.levels.len())]]
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        let values = rewards(one_row(self, input, rows)?)?;
        let reward = match self.chosen {
            Some(place) => values[place],
            None => Reward::new(mean(&values.iter().map(|value| value.get()).collect::<Vec<_>>()))?,
        };
        Ok(HeadOutput::Quantiles { levels: self.levels.clone(), values, reward })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{head, input, numbers, row};
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn the_reward_is_the_mean_or_a_level() {
        for (reward, expected) in [("\"mean\"", 1.0), (r#"{"level":0.1}"#, -1.0)] {
            let head = head(&format!(r#"{{"quantile":{{"levels":[0.1,0.5,0.9],"reward":{reward}}}}}"#)).unwrap();
            let read = head.read(&input(1), &[row(&[3], &[-1.0, 0.5, 3.5])]).unwrap();
            assert_all_close(&numbers(read.members()), &[expected]);
        }
    }

    #[test]
    fn levels_must_ascend_and_hold_the_chosen_one() {
        for bad in [
            r#"{"levels":[],"reward":"mean"}"#,
            r#"{"levels":[0.5,0.1],"reward":"mean"}"#,
            r#"{"levels":[0.5,1.0],"reward":"mean"}"#,
            r#"{"levels":[0.5],"reward":{"level":0.4}}"#,
        ] {
            assert!(head(&format!(r#"{{"quantile":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
