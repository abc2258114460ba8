//! What best-of-n would have given for every smaller n, without drawing again.
//!
//! With N candidates sorted by proxy reward, ascending, the expected gold reward of the best of n drawn from them is
//! `Σ_{i=n..N} C(i−1, n−1)/C(N, n) · gold_(i)`: unbiased, and exact for the proxy itself (Nakano et al. 2021; Coste et
//! al. 2023). Optimisation by best-of-n moves the policy by `KL = log n − (n − 1)/n` nats.
//!
//! The weights come from `w_N = n/N` and `w_{i−1} = w_i (i − n)/(i − 1)`: products of ratios at most 1, which neither
//! overflow as binomials do nor lose digits, at any N.

use schemars::JsonSchema;
use serde::Serialize;

use crate::numeric::descending;

/// Best-of-n at one n.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct CurvePoint {
    /// How many candidates are drawn.
    pub n: usize,
    /// The expected proxy reward of the best of them by proxy reward.
    pub proxy: f64,
    /// Its expected gold reward, where gold rewards were given.
    pub gold: Option<f64>,
    /// How far this moves the policy, in nats.
    pub divergence: f64,
}

/// `KL = log n − (n − 1)/n`, in nats; 0 for n = 1 and, by convention, for n = 0.
fn best_of_n_divergence(n: usize) -> f64 {
    let n = n.max(1) as f64;
    n.ln() - (n - 1.0) / n
}

/// The expected value of the best of `n` by proxy reward, where `ascending` holds all candidates' values from the worst
/// to the best by proxy reward; none unless `1 ≤ n ≤ N`.
fn expectation(ascending: &[f64], n: usize) -> Option<f64> {
    let count = ascending.len();
    if n == 0 || n > count {
        return None;
    }
    let mut weight = n as f64 / count as f64;
    let mut sum = 0.0;
    for i in (n..=count).rev() {
        sum += weight * ascending[i - 1];
        weight *= (i - n) as f64 / (i as f64 - 1.0).max(1.0);
        // What is left weighs less than a rounding error, and numbers that small are slow to compute with.
        if weight < f64::MIN_POSITIVE {
            break;
        }
    }
    Some(sum)
}

/// The values in ascending order of `proxy`. The lowest index wins a tie, so it stands last among equals.
fn ascending(proxy: &[f64], values: &[f64]) -> Vec<f64> {
    descending(proxy).into_iter().rev().map(|index| values[index]).collect()
}

/// Best-of-n for every n from 1 to N; none when there are gold rewards, but not one for each proxy reward.
///
/// The cost grows with N²; `cargo bench --bench scoring` measures it up to the 12,600 of the paper.
#[must_use]
pub fn best_of_n_curve(proxy: &[f64], gold: Option<&[f64]>) -> Option<Vec<CurvePoint>> {
    if gold.is_some_and(|gold| gold.len() != proxy.len()) {
        return None;
    }
    let by_proxy = ascending(proxy, proxy);
    let by_gold = gold.map(|gold| ascending(proxy, gold));
    let point = |n: usize| {
        let gold = by_gold.as_ref().and_then(|gold| expectation(gold, n));
        Some(CurvePoint { n, proxy: expectation(&by_proxy, n)?, gold, divergence: best_of_n_divergence(n) })
    };
    (1..=proxy.len()).map(point).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numeric::testing::assert_close;

    const PROXY: [f64; 5] = [0.2, 1.4, -0.5, 0.9, 2.1];
    const GOLD: [f64; 5] = [0.1, 0.8, -0.2, 1.0, 0.3];

    #[test]
    fn golden_g2() {
        let curve = best_of_n_curve(&PROXY, Some(&GOLD)).unwrap();
        for (n, gold, proxy) in [(1, 0.4, 0.82), (2, 0.57, 1.46), (3, 0.52, 1.77), (5, 0.3, 2.1)] {
            assert_eq!(curve[n - 1].n, n);
            assert_close(curve[n - 1].gold.unwrap(), gold);
            assert_close(curve[n - 1].proxy, proxy);
        }
    }

    #[test]
    fn golden_g2_coefficients() {
        let coefficients = |n: usize| -> Vec<f64> {
            let unit = |place: usize| (0..5).map(|index| if index == place { 1.0 } else { 0.0 }).collect::<Vec<_>>();
            (n - 1..5).map(|place| expectation(&unit(place), n).unwrap()).collect()
        };
        for (actual, expected) in coefficients(2).iter().zip([0.1, 0.2, 0.3, 0.4]) {
            assert_close(*actual, expected);
        }
        for (actual, expected) in coefficients(3).iter().zip([0.1, 0.3, 0.6]) {
            assert_close(*actual, expected);
        }
    }

    #[test]
    fn golden_g2_divergence() {
        for (n, expected) in [(1, 0.0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (12_500, 8.433564)] {
            assert_close(best_of_n_divergence(n), expected);
        }
    }

    #[test]
    fn large_samples_neither_overflow_nor_lose_their_weights() {
        let ones = vec![1.0; 12_600];
        for n in [1, 2, 100, 6_300, 12_500, 12_600] {
            assert_close(expectation(&ones, n).unwrap(), 1.0);
        }
        // The expected maximum of n out of 1..N is n (N + 1)/(n + 1).
        let ascending: Vec<f64> = (1..=12_600).map(f64::from).collect();
        for n in [1, 7, 4_000, 12_599] {
            let expected = n as f64 * 12_601.0 / (n as f64 + 1.0);
            assert!((expectation(&ascending, n).unwrap() / expected - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn duplicates_keep_their_own_gold() {
        // The first of two equal proxies wins the tie, and its own gold counts.
        let curve = best_of_n_curve(&[1.0, 1.0], Some(&[5.0, 7.0])).unwrap();
        assert_close(curve[1].gold.unwrap(), 5.0);
        assert_eq!(best_of_n_curve(&[1.0], Some(&[1.0, 2.0])), None);
        assert_eq!(best_of_n_curve(&[], None), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn the_curve_starts_at_the_mean_rises_and_ends_at_the_best(proxy in prop::collection::vec(-1e3..1e3_f64, 1..60)) {
            let curve = best_of_n_curve(&proxy, None).unwrap();
            prop_assert!((curve[0].proxy - crate::numeric::mean(&proxy)).abs() < 1e-9);
            let best = proxy.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((curve[proxy.len() - 1].proxy - best).abs() < 1e-9);
            prop_assert!(curve.is_sorted_by(|a, b| a.proxy <= b.proxy + 1e-9 && a.divergence <= b.divergence));
        }
    }
}
