//! Candidates by the preferences between each two of them, which need not come from scores and may cycle.
//!
//! `P(y ≻ y′)` for every pair (Rosset et al. 2024, "Direct Nash Optimization"). A candidate's win rate is its mean over
//! the others; Copeland's score counts the others that it beats. Where preferences cycle no candidate beats all others,
//! and none is made up.

/// The probability that each candidate beats each other one.
///
/// Invariants: at least two candidates; a square of numbers from 0 to 1 with ½ on its diagonal; `P(i ≻ j) + P(j ≻ i) = 1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    matrix: Vec<Vec<f64>>,
}

/// Why numbers are no preferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreferencesError {
    /// The matrix isn't square, or smaller than two by two.
    #[error("preferences need one row and one column for each of at least two candidates")]
    Shape,
    /// A number isn't a probability.
    #[error("the preference of candidate {0} over candidate {1} must lie in 0 to 1")]
    NotAProbability(usize, usize),
    /// The two directions contradict each other.
    #[error("the preferences between candidates {0} and {1} must sum to 1; average both orders first")]
    Contradiction(usize, usize),
}

impl Preferences {
    /// How far two directions may be from summing to 1.
    const TOLERANCE: f64 = 1e-6;

    /// Takes preferences whose two directions agree.
    ///
    /// # Errors
    /// When the matrix is not square, holds what is no probability, or its directions contradict each other.
    pub fn new(matrix: Vec<Vec<f64>>) -> Result<Self, PreferencesError> {
        Self::check_probabilities(&matrix)?;
        for (i, row) in matrix.iter().enumerate() {
            for (j, preference) in row.iter().enumerate().skip(i) {
                if (preference + matrix[j][i] - 1.0).abs() > Self::TOLERANCE {
                    return Err(PreferencesError::Contradiction(i, j));
                }
            }
        }
        Ok(Self { matrix })
    }

    /// Takes what a pairwise model said of each ordered pair, and averages both orders, `(P + 1 − P′)/2`, which removes
    /// what the order itself does. The diagonal is ignored.
    ///
    /// # Errors
    /// When the matrix is not square or holds what is no probability.
    pub fn averaged(matrix: &[Vec<f64>]) -> Result<Self, PreferencesError> {
        Self::check_probabilities(matrix)?;
        let preference =
            |i: usize, j: usize| if i == j { 0.5 } else { f64::midpoint(matrix[i][j], 1.0 - matrix[j][i]) };
        let count = matrix.len();
        Ok(Self { matrix: (0..count).map(|i| (0..count).map(|j| preference(i, j)).collect()).collect() })
    }

    fn check_probabilities(matrix: &[Vec<f64>]) -> Result<(), PreferencesError> {
        if matrix.len() < 2 || matrix.iter().any(|row| row.len() != matrix.len()) {
            return Err(PreferencesError::Shape);
        }
        for (i, row) in matrix.iter().enumerate() {
            if let Some(j) = row.iter().position(|p| !(0.0..=1.0).contains(p)) {
                return Err(PreferencesError::NotAProbability(i, j));
            }
        }
        Ok(())
    }

    /// Each candidate's mean probability of beating another.
    #[must_use]
    pub fn win_rates(&self) -> Vec<f64> {
        let others = (self.matrix.len() - 1) as f64;
        self.matrix.iter().enumerate().map(|(i, row)| (row.iter().sum::<f64>() - row[i]) / others).collect()
    }

    /// How many others each candidate beats; a tie counts one half.
    #[must_use]
    pub fn copeland(&self) -> Vec<f64> {
        let of_row = |i: usize| {
            let others = self.matrix[i].iter().enumerate().filter(|(j, _)| *j != i);
            others
                .map(|(_, p)| {
                    if *p > 0.5 {
                        1.0
                    } else if *p < 0.5 {
                        0.0
                    } else {
                        0.5
                    }
                })
                .sum()
        };
        (0..self.matrix.len()).map(of_row).collect()
    }

    /// The candidate that beats every other one, if there is one; in a cycle there is none.
    #[must_use]
    pub fn condorcet_winner(&self) -> Option<usize> {
        let beats_all = |i: &usize| self.matrix[*i].iter().enumerate().all(|(j, p)| j == *i || *p > 0.5);
        (0..self.matrix.len()).find(beats_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn golden_g19_a_cycle_has_no_winner() {
        let matrix = vec![vec![0.5, 0.7, 0.4], vec![0.3, 0.5, 0.8], vec![0.6, 0.2, 0.5]];
        let preferences = Preferences::new(matrix.clone()).unwrap();
        assert_all_close(&preferences.win_rates(), &[0.55, 0.55, 0.4]);
        assert_all_close(&preferences.copeland(), &[1.0, 1.0, 1.0]);
        assert_eq!(preferences.condorcet_winner(), None);
        assert_all_close(&Preferences::averaged(&matrix).unwrap().win_rates(), &[0.55, 0.55, 0.4]);
    }

    #[test]
    fn both_orders_are_averaged() {
        let biased = [vec![0.9, 0.9], vec![0.7, 0.9]];
        assert_eq!(Preferences::new(biased.to_vec()), Err(PreferencesError::Contradiction(0, 0)));
        let preferences = Preferences::averaged(&biased).unwrap();
        assert_all_close(&preferences.win_rates(), &[0.6, 0.4]);
        assert_eq!(preferences.condorcet_winner(), Some(0));
    }

    #[test]
    fn what_is_no_tournament_is_refused() {
        assert_eq!(Preferences::new(vec![vec![0.5]]), Err(PreferencesError::Shape));
        assert_eq!(Preferences::new(vec![vec![0.5, 0.5], vec![0.5]]), Err(PreferencesError::Shape));
        let bad = vec![vec![0.5, 1.5], vec![-0.5, 0.5]];
        assert_eq!(Preferences::new(bad), Err(PreferencesError::NotAProbability(0, 1)));
    }
}
