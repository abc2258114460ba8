//! Candidates from best to worst, with their margins.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{domain::Reward, numeric::descending};

/// Candidates from best to worst; ties by the lowest index.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Ranking {
    placements: Vec<Placement>,
}

/// One candidate's place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Placement {
    /// The candidate's index.
    pub index: usize,
    /// Its rank, 1 for the best; tied candidates share the best rank among them.
    pub rank: usize,
    /// Its reward.
    pub reward: f64,
    /// How much it lacks to the best, at least 0.
    pub behind: f64,
    /// How much it leads the next one, at least 0; none for the last.
    pub ahead: Option<f64>,
}

impl Ranking {
    /// Ranks candidates. Differences of rewards at opposite ends of `f64` are cut to the largest `f64`.
    #[must_use]
    pub fn of(rewards: &[Reward]) -> Self {
        let values: Vec<f64> = rewards.iter().map(|reward| reward.get()).collect();
        let order = descending(&values);
        let gap = |higher: usize, lower: usize| (values[higher] - values[lower]).clamp(0.0, f64::MAX);
        let mut rank = 1;
        let placements = order.iter().enumerate().map(|(place, index)| {
            if place > 0 && values[order[place - 1]] > values[*index] {
                rank = place + 1;
            }
            Placement {
                index: *index,
                rank,
                reward: values[*index],
                behind: gap(order[0], *index),
                ahead: order.get(place + 1).map(|next| gap(*index, *next)),
            }
        });
        Self { placements: placements.collect() }
    }

    /// The candidates from best to worst.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(values: &[f64]) -> Ranking {
        Ranking::of(&values.iter().map(|value| Reward::new(*value).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn ties_go_to_the_lowest_index_and_share_their_rank() {
        let ranking = ranking(&[1.0, 3.0, 3.0, 2.0]);
        let places: Vec<(usize, usize)> = ranking.placements().iter().map(|p| (p.index, p.rank)).collect();
        assert_eq!(places, [(1, 1), (2, 1), (3, 3), (0, 4)]);
        let margins: Vec<Option<f64>> = ranking.placements().iter().map(|p| p.ahead).collect();
        assert_eq!(margins, [Some(0.0), Some(1.0), Some(1.0), None]);
        assert_eq!(ranking.placements()[0].index, 1);
    }

    #[test]
    fn margins_stay_finite() {
        let ranking = ranking(&[f64::MAX, f64::MIN]);
        assert!(ranking.placements().iter().all(|p| p.behind.is_finite() && p.ahead.is_none_or(f64::is_finite)));
        assert!(Ranking::of(&[]).placements().is_empty());
    }
}
