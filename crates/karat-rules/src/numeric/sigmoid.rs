//! Sigmoid, softmax and their logarithms, exact far into both tails.

/// `σ(x) = 1 / (1 + e^(−x))`, without overflow for very negative `x`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    if x < 0.0 {
        let e = x.exp();
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// `log σ(x)`, where `σ(x).ln()` would give −∞ below −745 and lose all digits above 37.
pub(crate) fn log_sigmoid(x: f64) -> f64 {
    if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() }
}

/// `log(p / (1 − p))`; −∞ at 0 and +∞ at 1.
#[must_use]
pub fn logit(p: f64) -> f64 {
    p.ln() - (-p).ln_1p()
}

/// `log softmax(z)`: the largest logit is taken out first, so that none overflows.
pub(crate) fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_total = logits.iter().map(|z| (z - largest).exp()).sum::<f64>().ln() + largest;
    logits.iter().map(|z| z - log_total).collect()
}

/// `log softmax(z)` at a few columns of a wide row, such as a vocabulary's logits; `None` when there is no such column.
///
/// Sums in double precision over exponentials in single precision: exact to about 1e-6, and several times as fast as
/// `log_softmax`.
#[must_use]
pub fn log_probabilities(logits: &[f32], columns: &[u32]) -> Option<Vec<f32>> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|z| f64::from((z - largest).exp())).sum();
    let log_total = total.ln() + f64::from(largest);
    let at = |column: &u32| {
        let logit = *logits.get(usize::try_from(*column).ok()?)?;
        #[expect(clippy::cast_possible_truncation, reason = "as precise as the logits were")]
        Some((f64::from(logit) - log_total) as f32)
    };
    columns.iter().map(at).collect()
}

/// `softmax(z)`.
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::numeric::testing::{assert_all_close, assert_close};

    #[test]
    fn both_tails_are_exact() {
        assert_all_close(&[log_sigmoid(-800.0), log_sigmoid(800.0)], &[-800.0, 0.0]);
        assert!(log_sigmoid(-1e30).is_finite());
        assert_all_close(&[sigmoid(-800.0), sigmoid(0.0), sigmoid(800.0)], &[0.0, 0.5, 1.0]);
        assert_all_close(&softmax(&[1e30, -1e30]), &[1.0, 0.0]);
        assert_all_close(&log_softmax(&[1000.0, 1000.0]), &[0.5_f64.ln(), 0.5_f64.ln()]);
    }

    #[test]
    fn a_wide_row_gives_the_same_at_its_columns() {
        let logits: Vec<f32> = (0..5000_u16).map(|at| f32::from(at % 97) * 0.31 - 11.0).collect();
        let exact = log_softmax(&logits.iter().copied().map(f64::from).collect::<Vec<_>>());
        let found = log_probabilities(&logits, &[0, 96, 4999]).unwrap();
        let wide: Vec<f64> = found.into_iter().map(f64::from).collect();
        for (found, at) in wide.iter().zip([0, 96, 4999]) {
            assert!((found - exact[at]).abs() < 1e-5, "{found} is not {}", exact[at]);
        }
        assert_eq!(log_probabilities(&logits, &[5000]), None);
        assert!(log_probabilities(&[f32::NAN, 0.0], &[1]).unwrap()[0].is_nan(), "a head refuses it");
    }

    #[test]
    fn golden_g18_the_implicit_preference() {
        assert_close(sigmoid(0.1 * (5.0 - 1.0)), 0.598688);
    }

    proptest! {
        #[test]
        fn the_logit_undoes_the_sigmoid(x in -30.0..30.0_f64) {
            prop_assert!((logit(sigmoid(x)) - x).abs() < 1e-2);
            prop_assert!((log_sigmoid(x) - sigmoid(x).ln()).abs() < 1e-9);
        }
    }
}
