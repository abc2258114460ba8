//! Quantiles of the distribution of rewards that a response might earn.
//!
//! Quantile reward models (Dorka 2024, "Quantile Regression for Distributional Reward Models in RLHF") estimate a
//! distribution instead of a point. The reward is the mean of the quantiles, or one of them: a low level is cautious.
//!
//! Where each objective has its quantiles, those of the reward are `v_q = Σ_j g_j v_{q,j}`, by the weights that the graph
//! computes for the prompt, as the authors' own code adds them up.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Head, HeadError, HeadOutput, Layout, finite, layout::arrangement, rewards};
use crate::{
    domain::{Count, Reward, RowTensor, TokenizedInput, catalogue::Rule},
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
    /// How many objectives have quantiles of their own, which the graph's second output weighs, read at the same token
    /// or at the first of `text.gate_mark`; without it, the quantiles are the reward's.
    #[serde(default)]
    objectives: Option<Count>,
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
    objectives: Option<usize>,
}

impl Rule for Quantile {
    const NAME: &'static str = "quantile";
    const SUMMARY: &'static str = "Quantiles of the reward's distribution; the reward is their mean, or the one at a \
        level: a low level is cautious. Output [batch, Q]; with objectives [batch, Q·K], all objectives' lowest quantiles \
        first, and a second one, [batch, K], for the weights.";
    const FORMULA: &'static str = "R = mean_q v_q, or v_level; of objectives v_q = sum_j g_j v_qj";
    const SOURCE: &'static str = "Dorka 2024, Quantile Regression for Distributional Reward Models in RLHF";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"levels": [0.1, 0.5, 0.9], "reward": "mean"}"#,
        r#"{"levels": [0.1, 0.5, 0.9], "reward": {"level": 0.1}}"#,
        r#"{"levels": [0.25, 0.5, 0.75], "reward": "mean", "objectives": 19}"#,
    ];

    type Parameters = Parameters;
}

impl TryFrom<Parameters> for Quantile {
    type Error = String;

    fn try_from(Parameters { levels, reward, objectives }: Parameters) -> Result<Self, String> {
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
        Ok(Self { levels: levels.into(), chosen, objectives: objectives.map(Count::get) })
    }
}

impl Head for Quantile {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        let quantiles = |objectives: usize| Layout::list(self.levels.len() * objectives);
        vec![match self.objectives {
            None => vec![quantiles(1)],
            Some(objectives) => vec![quantiles(objectives), Layout::list(objectives)],
        }]
    }

    fn reads_gate(&self) -> bool {
        self.objectives.is_some()
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        arrangement(self, input, rows)?;
        let values = match self.objectives {
            None => rewards(rows[0].values())?,
            Some(objectives) => {
                let (quantiles, weights) = (finite(rows[0].values())?, finite(rows[1].values())?);
                let weighed = |of_level: &[f64]| {
                    Reward::new(weights.iter().zip(of_level).map(|(weight, value)| weight * value).sum())
                };
                quantiles.chunks_exact(objectives).map(weighed).collect::<Result<_, _>>()?
            }
        };
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
    use crate::{head::HeadOutput, numeric::testing::assert_all_close};

    #[test]
    fn the_reward_is_the_mean_or_a_level() {
        for (reward, expected) in [("\"mean\"", 1.0), (r#"{"level":0.1}"#, -1.0)] {
            let head = head(&format!(r#"{{"quantile":{{"levels":[0.1,0.5,0.9],"reward":{reward}}}}}"#)).unwrap();
            let read = head.read(&input(1), &[row(&[3], &[-1.0, 0.5, 3.5])]).unwrap();
            assert_all_close(&numbers(read.members()), &[expected]);
        }
    }

    #[test]
    fn objectives_are_weighed_level_by_level() {
        let head = head(r#"{"quantile":{"levels":[0.25,0.75],"reward":"mean","objectives":3}}"#).unwrap();
        let rows = [row(&[6], &[1.0, 2.0, 3.0, 2.0, 4.0, 8.0]), row(&[3], &[0.5, 0.25, -1.0])];
        let read = head.read(&input(1), &rows).unwrap();
        let HeadOutput::Quantiles { values, .. } = &read else { panic!("{read:?}") };
        assert_all_close(&numbers(values), &[-2.0, -6.0]);
        assert_all_close(&numbers(read.members()), &[-4.0]);
        assert!(head.reads_gate() && head.read(&input(1), &rows[..1]).is_err());
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
