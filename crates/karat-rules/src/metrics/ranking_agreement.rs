//! Whether two scorers rank the same candidates alike.
//!
//! Kendall's τ and Spearman's ρ with ties treated properly (τ-b, average ranks), and the consistency rate of CREAM (Wang
//! et al. 2024, "CREAM: Consistency Regularized Self-Rewarding Language Models"): `C = (τ + 1)/2` with τ over ordinal
//! ranks, which break ties by the order of the input. Two lists with unlike ties can thus agree fully by the paper's rule;
//! both are given.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Metric, MetricError, answer, equally_long};
use crate::{
    domain::catalogue::Rule,
    numeric::{average_ranks, ordinal_ranks, pearson},
};

/// The scores that two scorers gave the same candidates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RankingAgreement {
    /// The first scorer's, one a candidate, at least two.
    first: Vec<f64>,
    /// The second scorer's, in the same order.
    second: Vec<f64>,
}

impl Rule for RankingAgreement {
    const NAME: &'static str = "ranking_agreement";
    const SUMMARY: &'static str = "Whether two scorers rank the same candidates alike: Kendall's tau-b and Spearman's \
        rho with ties treated properly, and CREAM's consistency by its own ordinal rule. A list of equal scores has no \
        tau-b or rho.";
    const FORMULA: &'static str = "tau_b = (concordant - discordant) / sqrt(pairs untied in first * pairs untied in \
        second); rho = Pearson of average ranks; C = (tau of ordinal ranks + 1) / 2";
    const SOURCE: &'static str =
        "Kendall 1945; Wang et al. 2024, CREAM: Consistency Regularized Self-Rewarding Language Models";
    const EXAMPLES: &'static [&'static str] =
        &[r#"{"first": [0.1, 0.9, 0.4, 0.7, 0.2], "second": [0.2, 0.8, 0.6, 0.5, 0.1]}"#];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        equally_long(&self.first, &self.second, 2)
    }
}

/// How alike two rankings are; 1 is alike, −1 reversed.
#[derive(Debug, Clone, Copy, Serialize)]
struct Agreement {
    tau_b: Option<f64>,
    spearman: Option<f64>,
    ordinal_tau: f64,
    consistency: f64,
    spearman_consistency: Option<f64>,
}

/// Concordant less discordant pairs, and the pairs that are untied in the first and in the second list, in `n log n`
/// steps (Knight 1966, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data"): ordered by the first list,
/// what a merge sort of the second swaps is discordant.
fn pairs(first: &[f64], second: &[f64]) -> (f64, f64, f64) {
    let mut points: Vec<(f64, f64)> = first.iter().copied().zip(second.iter().copied()).collect();
    let order = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    points.sort_by(|a, b| order(a.0, b.0).then(order(a.1, b.1)));
    let tied_both = tied_pairs(&points);
    let firsts: Vec<f64> = points.iter().map(|point| point.0).collect();
    let mut seconds: Vec<f64> = points.iter().map(|point| point.1).collect();
    let discordant = swaps(&mut seconds);
    let all = pair_count(points.len());
    let (tied_first, tied_second) = (tied_pairs(&firsts), tied_pairs(&seconds));
    let concordant = all + tied_both - tied_first - tied_second - discordant;
    (concordant as f64 - discordant as f64, (all - tied_first) as f64, (all - tied_second) as f64)
}

/// How many pairs there are of `count` things.
fn pair_count(count: usize) -> u64 {
    let count = count as u64;
    count * count.saturating_sub(1) / 2
}

/// How many pairs of a sorted list are equal.
fn tied_pairs<T: PartialEq>(sorted: &[T]) -> u64 {
    sorted.chunk_by(|a, b| a == b).map(|run| pair_count(run.len())).sum()
}

/// Sorts a list; gives how many pairs stood in the wrong order.
fn swaps(numbers: &mut [f64]) -> u64 {
    let middle = numbers.len() / 2;
    if middle == 0 {
        return 0;
    }
    let (left, right) = numbers.split_at_mut(middle);
    let mut count = swaps(left) + swaps(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut at, mut other) = (0, 0);
    while at < left.len() && other < right.len() {
        if right[other] < left[at] {
            count += (left.len() - at) as u64;
            merged.push(right[other]);
            other += 1;
        } else {
            merged.push(left[at]);
            at += 1;
        }
    }
    merged.extend_from_slice(&left[at..]);
    merged.extend_from_slice(&right[other..]);
    numbers.copy_from_slice(&merged);
    count
}

/// Kendall's τ-b of two equally long lists, from −1 to 1; none when one of them is constant.
fn tau_b(first: &[f64], second: &[f64]) -> Option<f64> {
    let (balance, untied_first, untied_second) = pairs(first, second);
    let scale = (untied_first * untied_second).sqrt();
    (scale > 0.0).then(|| balance / scale)
}

/// Spearman's ρ with average ranks, from −1 to 1; none when one of the lists is constant.
pub(super) fn spearman(first: &[f64], second: &[f64]) -> Option<f64> {
    pearson(&average_ranks(first), &average_ranks(second))
}

/// CREAM's consistency, from 0 to 1: `(τ + 1)/2` over ordinal ranks, whose ties go by the order of the input; none of
/// fewer than two.
fn ordinal_consistency(first: &[f64], second: &[f64]) -> Option<f64> {
    tau_b(&ordinal_ranks(first), &ordinal_ranks(second)).map(|tau| f64::midpoint(tau, 1.0))
}

impl Metric for RankingAgreement {
    fn compute(&self) -> Result<Value, MetricError> {
        let consistency =
            ordinal_consistency(&self.first, &self.second).ok_or(MetricError::NonFinite("the consistency"))?;
        let spearman = spearman(&self.first, &self.second);
        answer(Agreement {
            tau_b: tau_b(&self.first, &self.second),
            spearman,
            ordinal_tau: 2.0 * consistency - 1.0,
            consistency,
            spearman_consistency: spearman.map(|rho| f64::midpoint(rho, 1.0)),
        })
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

    #[test]
    fn golden_g8() {
        let result = metric(&format!(r#"{{"ranking_agreement":{}}}"#, RankingAgreement::EXAMPLES[0])).unwrap();
        for (pointer, expected) in [
            ("/tau_b", 0.6),
            ("/ordinal_tau", 0.6),
            ("/consistency", 0.8),
            ("/spearman", 0.8),
            ("/spearman_consistency", 0.9),
        ] {
            assert_close(number(&result, pointer), expected);
        }
        let reversed = metric(r#"{"ranking_agreement":{"first":[1,2,3],"second":[3,2,1]}}"#).unwrap();
        assert_close(number(&reversed, "/tau_b"), -1.0);
        assert_close(number(&reversed, "/consistency"), 0.0);
    }

    #[test]
    fn golden_g8c_the_ordinal_rule_hides_unlike_ties() {
        assert_close(ordinal_consistency(&[1.0, 1.0, 2.0], &[1.0, 2.0, 2.0]).unwrap(), 1.0);
        assert_close(tau_b(&[1.0, 1.0, 2.0], &[1.0, 2.0, 2.0]).unwrap(), 0.5);
    }

    #[test]
    fn constant_lists_have_no_correlation() {
        let result = metric(r#"{"ranking_agreement":{"first":[1,1],"second":[1,2]}}"#).unwrap();
        assert!(result["tau_b"].is_null() && result["spearman"].is_null());
        assert!(metric(r#"{"ranking_agreement":{"first":[1,2],"second":[1]}}"#).is_err());
        assert!(metric(r#"{"ranking_agreement":{"first":[1],"second":[1]}}"#).is_err());
    }

    /// Kendall's own definition, pair by pair.
    fn pair_by_pair(first: &[f64], second: &[f64]) -> (f64, f64, f64) {
        let (mut balance, mut untied_first, mut untied_second) = (0.0, 0.0, 0.0);
        let sign = |a: f64, b: f64| if a > b { 1.0 } else { -f64::from(a < b) };
        for i in 0..first.len() {
            for j in 0..i {
                let (one, other) = (sign(first[i], first[j]), sign(second[i], second[j]));
                balance += one * other;
                untied_first += f64::abs(one);
                untied_second += f64::abs(other);
            }
        }
        (balance, untied_first, untied_second)
    }

    #[test]
    fn a_million_scores_are_no_square_of_pairs() {
        let first: Vec<f64> = (0..1_000_000).map(f64::from).collect();
        let reversed: Vec<f64> = first.iter().rev().copied().collect();
        assert_close(tau_b(&first, &first).unwrap(), 1.0);
        assert_close(tau_b(&first, &reversed).unwrap(), -1.0);
    }

    proptest! {
        #[test]
        fn counting_by_sorting_is_counting_pair_by_pair(
            points in prop::collection::vec((-4..4_i32, -4..4_i32), 2..40),
        ) {
            let (first, second): (Vec<f64>, Vec<f64>) =
                points.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            prop_assert_eq!(pairs(&first, &second), pair_by_pair(&first, &second));
        }

        #[test]
        fn agreement_is_bounded_symmetric_and_one_with_itself(
            pairs in prop::collection::vec((-5..5_i32, -5..5_i32), 2..30),
        ) {
            let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            if let (Some(tau), Some(rho)) = (tau_b(&first, &second), spearman(&first, &second)) {
                prop_assert!(tau.abs() <= 1.0 + 1e-12 && rho.abs() <= 1.0);
                prop_assert_eq!(tau_b(&second, &first), Some(tau));
                prop_assert!((tau_b(&first, &first).unwrap() - 1.0).abs() < 1e-12);
            }
        }
    }
}
