//! Candidates compared pair by pair: who wins how often, and where there is no order to be found.
//!
//! A judge of pairs may prefer a to b, b to c and c to a. A total order would hide that, so none is given: beside the mean
//! win rates (the reward of Rosset et al. 2024) and Copeland's scores stand the circular triads (Kendall and Babington
//! Smith 1940) and the groups within which each candidate is beaten, over some steps, by every other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer};
use crate::domain::catalogue::Rule;

/// The most circular triads that are listed; all are counted.
const LISTED: usize = 100;
/// The most candidates: triads are counted one by one.
const MOST: usize = 512;

/// The preference for each candidate over each other one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tournament {
    /// A row for each candidate, at least two: the probability from 0 to 1 that it is better than each. What a candidate's
    /// is over itself doesn't matter; those of two over each other sum to 1.
    preferences: Vec<Vec<f64>>,
}

/// How candidates stand to each other.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Standing {
    /// Each candidate's mean probability to be better than another.
    pub win_rates: Vec<f64>,
    /// How many others each is preferred to, ties counted half.
    pub copeland: Vec<f64>,
    /// The candidates that are preferred to every other one: one or none.
    pub condorcet_winner: Option<usize>,
    /// How many triads go in a circle: a before b, b before c, c before a.
    pub circular_triads: u64,
    /// Those triads, up to 100, each from its lowest candidate on in the order of preference.
    pub cycles: Vec<[usize; 3]>,
    /// Groups of candidates within which there is no order, each sorted; candidates that stand in none are left out.
    pub unordered: Vec<Vec<usize>>,
}

impl Rule for Tournament {
    const NAME: &'static str = "tournament";
    const SUMMARY: &'static str = "Compares candidates pair by pair: mean win rates, Copeland scores, and every circle of \
        preferences, which no total order could hold.";
    const FORMULA: &'static str = "win rate of i = mean over j != i of P(i > j); Copeland of i = number of j with \
        P(i > j) > 1/2, ties counted 1/2; circular triads: i > j, j > k, k > i";
    const SOURCE: &'static str = "Rosset et al. 2024, Direct Nash Optimization: Teaching Language Models to Self-Improve \
        with General Preferences; Copeland 1951; Kendall and Babington Smith 1940, On the Method of Paired Comparisons";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"preferences": [[0.5, 0.7, 0.4], [0.3, 0.5, 0.8], [0.6, 0.2, 0.5]]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        let count = self.preferences.len();
        if !(2..=MOST).contains(&count) {
            return Err(format!("there are {count} candidates; send from 2 to {MOST}"));
        }
        for (row, preferences) in self.preferences.iter().enumerate() {
            if preferences.len() != count {
                return Err(format!("row {row} has {} preferences for {count} candidates", preferences.len()));
            }
            for (other, preference) in preferences.iter().enumerate().filter(|(other, _)| *other != row) {
                let reversed = self.preferences[other].get(row).copied().unwrap_or(f64::NAN);
                if !(0.0..=1.0).contains(preference) || (preference + reversed - 1.0).abs() > 1e-6 {
                    return Err(format!(
                        "the preferences for {row} over {other} and back are {preference} and {reversed}; send \
                         probabilities from 0 to 1 that sum to 1"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Tournament {
    /// The tournament of preferences for each candidate over each other one.
    ///
    /// # Errors
    /// When they are no square of probabilities, as the field says.
    pub fn new(preferences: Vec<Vec<f64>>) -> Result<Self, String> {
        let tournament = Self { preferences };
        tournament.check_parameters().map(|()| tournament)
    }

    fn beats(&self, one: usize, other: usize) -> bool {
        one != other && self.preferences[one][other] > 0.5
    }

    /// How the candidates stand to each other.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let count = self.preferences.len();
        let others = |one: usize| (0..count).filter(move |other| *other != one);
        let over = |one: usize| others(one).map(move |other| self.preferences[one][other]);
        let copeland: Vec<f64> = (0..count)
            .map(|one| {
                over(one)
                    .map(|p| {
                        if p > 0.5 {
                            1.0
                        } else if p < 0.5 {
                            0.0
                        } else {
                            0.5
                        }
                    })
                    .sum()
            })
            .collect();
        let (circular_triads, cycles) = self.cycles();
        Standing {
            win_rates: (0..count).map(|one| over(one).sum::<f64>() / (count - 1) as f64).collect(),
            condorcet_winner: (0..count).find(|one| others(*one).all(|other| self.beats(*one, other))),
            copeland,
            circular_triads,
            cycles,
            unordered: self.unordered(),
        }
    }

    fn cycles(&self) -> (u64, Vec<[usize; 3]>) {
        let count = self.preferences.len();
        let (mut circular, mut listed) = (0, Vec::new());
        for a in 0..count {
            for b in a + 1..count {
                for c in b + 1..count {
                    let found = [[a, b, c], [a, c, b]]
                        .into_iter()
                        .find(|[x, y, z]| self.beats(*x, *y) && self.beats(*y, *z) && self.beats(*z, *x));
                    if let Some(cycle) = found {
                        circular += 1;
                        if listed.len() < LISTED {
                            listed.push(cycle);
                        }
                    }
                }
            }
        }
        (circular, listed)
    }

    /// The strongly connected components of more than one candidate.
    fn unordered(&self) -> Vec<Vec<usize>> {
        let count = self.preferences.len();
        let reached = |from: usize, forward: bool| {
            let mut seen = vec![false; count];
            let mut waiting = vec![from];
            while let Some(one) = waiting.pop() {
                if std::mem::replace(&mut seen[one], true) {
                    continue;
                }
                let steps = |other: &usize| if forward { self.beats(one, *other) } else { self.beats(*other, one) };
                waiting.extend((0..count).filter(steps).filter(|other| !seen[*other]));
            }
            seen
        };
        let mut grouped = vec![false; count];
        let mut groups = Vec::new();
        for one in 0..count {
            if grouped[one] {
                continue;
            }
            let (ahead, behind) = (reached(one, true), reached(one, false));
            let group: Vec<usize> = (0..count).filter(|other| ahead[*other] && behind[*other]).collect();
            group.iter().for_each(|member| grouped[*member] = true);
            if group.len() > 1 {
                groups.push(group);
            }
        }
        groups
    }
}

impl Metric for Tournament {
    fn compute(&self) -> Result<Value, MetricError> {
        answer(self.standing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::assert_all_close;

    fn standing(preferences: &[&[f64]]) -> Standing {
        Tournament::new(preferences.iter().map(|row| row.to_vec()).collect()).unwrap().standing()
    }

    #[test]
    fn golden_g19_a_circle_is_told_and_no_order_made_up() {
        let told = standing(&[&[0.5, 0.7, 0.4], &[0.3, 0.5, 0.8], &[0.6, 0.2, 0.5]]);
        assert_all_close(&told.win_rates, &[0.55, 0.55, 0.4]);
        assert_all_close(&told.copeland, &[1.0, 1.0, 1.0]);
        assert_eq!((told.circular_triads, told.cycles, told.unordered), (1, vec![[0, 1, 2]], vec![vec![0, 1, 2]]));
        assert_eq!(told.condorcet_winner, None);
    }

    #[test]
    fn an_order_is_an_order_and_a_tie_is_half_a_win() {
        let told = standing(&[&[0.5, 0.9, 0.5], &[0.1, 0.5, 0.4], &[0.5, 0.6, 0.5]]);
        assert_all_close(&told.copeland, &[1.5, 0.0, 1.5]);
        assert_eq!((told.circular_triads, told.unordered.len(), told.condorcet_winner), (0, 0, None));
        let told = standing(&[&[0.5, 0.2], &[0.8, 0.5]]);
        assert_eq!(told.condorcet_winner, Some(1));
    }

    #[test]
    fn a_winner_above_a_circle_stands_outside_of_it() {
        let told =
            standing(&[&[0.5, 0.4, 0.1, 0.9], &[0.6, 0.5, 0.6, 0.7], &[0.9, 0.4, 0.5, 0.2], &[0.1, 0.3, 0.8, 0.5]]);
        assert_eq!((told.condorcet_winner, told.unordered), (Some(1), vec![vec![0, 2, 3]]));
        assert_eq!(told.cycles, [[0, 3, 2]]);
    }

    #[test]
    fn what_is_no_tournament_is_refused() {
        for bad in
            [vec![], vec![vec![0.5]], vec![vec![0.5, 0.7], vec![0.4, 0.5]], vec![vec![0.5, 1.5], vec![-0.5, 0.5]]]
        {
            assert!(Tournament::new(bad.clone()).is_err(), "{bad:?}");
        }
        assert!(Tournament::new(vec![vec![f64::NAN, 0.3], vec![0.7, f64::NAN]]).is_ok(), "the diagonal doesn't matter");
        assert!(Tournament::new(vec![vec![0.5, f64::NAN], vec![0.7, 0.5]]).is_err());
    }
}
