//! Means, variances and covariances of numbers that come one by one or many at once, mergeable and without cancellation.
//!
//! One by one as in Welford 1962; many at once as sums of their distances from one of them, which are merged with what was
//! there. Both are in Chan et al. 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances"; that
//! such sums of n numbers cancel by a factor of n + 1 at most, wherever the numbers lie, follows from the origin being one
//! of them.

use serde::{Deserialize, Serialize};

use super::lanes::sums;

/// Count, means and co-moments of pairs `(x, y)`; of single numbers, with `y` left at 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: u64,
    x: f64,
    y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

/// A mean with what tells how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// How many numbers it is the mean of.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The sample variance of the numbers, divided by their count less one.
    pub variance: f64,
}

impl Mean {
    /// The standard error of the mean, squared.
    #[must_use]
    pub fn error_squared(&self) -> f64 {
        self.variance / self.count.max(1) as f64
    }
}

impl Moments {
    /// The moments of pairs of numbers, which stand at the same places of two columns. What isn't finite is left out as by
    /// [`Self::add`], and where it is as large that sums overflow, pairs are taken one by one.
    pub(super) fn of<X: Copy, Y: Copy>(xs: &[X], x_of: impl Fn(X) -> f64, ys: &[Y], y_of: impl Fn(Y) -> f64) -> Self {
        let (Some(first_x), Some(first_y)) = (xs.first(), ys.first()) else { return Self::default() };
        let (first_x, first_y) = (x_of(*first_x), y_of(*first_y));
        let [x, y, xx, yy, xy] = sums(xs, ys, |x, y| {
            let (dx, dy) = (x_of(x) - first_x, y_of(y) - first_y);
            [dx, dy, dx * dx, dy * dy, dx * dy]
        });
        if ![x, y, xx, yy].iter().all(|sum| sum.is_finite()) {
            let mut found = Self::default();
            xs.iter().zip(ys).for_each(|(x, y)| found.add(x_of(*x), y_of(*y)));
            return found;
        }
        let all = xs.len().min(ys.len()) as f64;
        Self {
            count: xs.len().min(ys.len()) as u64,
            x: first_x + x / all,
            y: first_y + y / all,
            // Rounding may leave less than nothing.
            xx: (xx - x * (x / all)).max(0.0),
            yy: (yy - y * (y / all)).max(0.0),
            xy: xy - x * (y / all),
        }
    }

    /// The same of single numbers.
    pub(super) fn of_one(xs: &[f64]) -> Self {
        Self::of(xs, |x| x, xs, |_| 0.0)
    }

    /// The same first numbers, each beside 0.
    pub(super) fn of_first(&self) -> Self {
        Self { y: 0.0, yy: 0.0, xy: 0.0, ..*self }
    }

    /// Takes a pair in. A number that isn't finite is left out, with its partner.
    pub fn add(&mut self, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        self.count += 1;
        let share = 1.0 / self.count as f64;
        let (dx, dy) = (x - self.x, y - self.y);
        self.x += dx * share;
        self.y += dy * share;
        self.xx += dx * (x - self.x);
        self.yy += dy * (y - self.y);
        self.xy += dx * (y - self.y);
    }

    /// Takes in all that another one saw.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let all = ours + theirs;
        let (dx, dy) = (other.x - self.x, other.y - self.y);
        let weight = ours * theirs / all;
        self.x += dx * theirs / all;
        self.y += dy * theirs / all;
        self.xx += other.xx + dx * dx * weight;
        self.yy += other.yy + dy * dy * weight;
        self.xy += other.xy + dx * dy * weight;
        self.count += other.count;
    }

    /// How many pairs there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean of `a·x + b·y`, with its variance; none of fewer than two pairs.
    #[must_use]
    pub fn combined(&self, a: f64, b: f64) -> Option<Mean> {
        if self.count < 2 {
            return None;
        }
        let variance = (a * a * self.xx + b * b * self.yy + 2.0 * a * b * self.xy) / (self.count - 1) as f64;
        // Rounding may leave less than nothing of two sums that cancel.
        let found = Mean { count: self.count, mean: a * self.x + b * self.y, variance: variance.max(0.0) };
        (found.mean.is_finite() && found.variance.is_finite()).then_some(found)
    }

    /// The mean of the first numbers.
    #[must_use]
    pub fn first(&self) -> Option<Mean> {
        self.combined(1.0, 0.0)
    }

    /// The mean of the second numbers.
    #[must_use]
    pub fn second(&self) -> Option<Mean> {
        self.combined(0.0, 1.0)
    }

    /// The mean of `x` and of `y`, of however few pairs; 0 of none.
    #[must_use]
    pub fn means(&self) -> (f64, f64) {
        (self.x, self.y)
    }

    /// The population deviations of `x` and of `y`; 0 of none.
    #[must_use]
    pub fn deviations(&self) -> (f64, f64) {
        let count = self.count.max(1) as f64;
        ((self.xx / count).sqrt(), (self.yy / count).sqrt())
    }

    /// Pearson's correlation of `x` and `y`; none where one of them is constant.
    #[must_use]
    pub fn correlation(&self) -> Option<f64> {
        let scale = (self.xx * self.yy).sqrt();
        // What rounding leaves of a constant's spread is no spread.
        let flat = |spread: f64, mean: f64| spread <= (mean * 1e-12).powi(2) * self.count as f64;
        if self.count < 2 || !(scale > 0.0 && scale.is_finite()) || flat(self.xx, self.x) || flat(self.yy, self.y) {
            return None;
        }
        Some((self.xy / scale).clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(f64, f64)]) -> Moments {
        let mut moments = Moments::default();
        pairs.iter().for_each(|(x, y)| moments.add(*x, *y));
        moments
    }

    /// NumPy 2: `np.cov([1, 2, 4, 7], [2, 1, 5, 6])` and `np.corrcoef` of the same.
    #[test]
    fn moments_are_those_of_numpy() {
        let moments = of(&[(1.0, 2.0), (2.0, 1.0), (4.0, 5.0), (7.0, 6.0)]);
        let first = moments.first().unwrap();
        assert!((first.mean - 3.5).abs() < 1e-12 && (first.variance - 7.0).abs() < 1e-12);
        assert!((moments.second().unwrap().variance - 17.0 / 3.0).abs() < 1e-12);
        assert!((moments.correlation().unwrap() - 0.899_735_410_842_437_4).abs() < 1e-12);
        // The variance of y − x: of 1, -1, 1, -1.
        assert!((moments.combined(-1.0, 1.0).unwrap().variance - 4.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_constant_has_no_correlation_and_what_is_not_finite_is_left_out() {
        assert_eq!(of(&[(0.1, 1.0), (0.1, 2.0), (0.1, 3.0)]).correlation(), None);
        let moments = of(&[(f64::NAN, 1.0), (1.0, f64::INFINITY), (2.0, 3.0)]);
        assert_eq!((moments.count(), moments.means()), (1, (2.0, 3.0)));
        assert_eq!(moments.first(), None);
        let columns = |xs: &[f64], ys: &[f64]| Moments::of(xs, |x| x, ys, |y| y);
        let huge = columns(&[1e308, 1.5e308, f64::NAN], &[1.0; 3]);
        assert_eq!((huge.count(), huge.means()), (2, (1.25e308, 1.0)));
        let far = columns(&[0.0, 1e200], &[1.0; 2]);
        assert_eq!((far.count(), far.xx), (2, f64::INFINITY), "no square of it is a number");
    }

    proptest! {
        #[test]
        fn many_at_once_are_as_one_by_one(
            pairs in prop::collection::vec((-1e3..1e3_f64, -1e3..1e3_f64), 0..80),
            offset in prop::sample::select(vec![0.0, 1e6]),
            cut in 0..80_usize,
        ) {
            let pairs: Vec<(f64, f64)> = pairs.iter().map(|(x, y)| (x + offset, *y)).collect();
            let mut together = Moments::default();
            let (one, other) = pairs.split_at(cut.min(pairs.len()));
            for part in [one, other] {
                let (xs, ys): (Vec<f64>, Vec<f64>) = part.iter().copied().unzip();
                together.merge(&Moments::of(&xs, |x| x, &ys, |y| y));
            }
            let alone = of(&pairs);
            prop_assert_eq!(together.count(), alone.count());
            let (x, y) = (together.means(), alone.means());
            prop_assert!((x.0 - y.0).abs() <= 1e-9 * (1.0 + offset) && (x.1 - y.1).abs() <= 1e-9, "{x:?} {y:?}");
            if let (Some(x), Some(y)) = (together.combined(0.5, 2.0), alone.combined(0.5, 2.0)) {
                prop_assert!((x.variance - y.variance).abs() <= 1e-6 * (1.0 + y.variance), "{x:?} {y:?}");
            }
        }

        #[test]
        fn merging_is_seeing_all(pairs in prop::collection::vec((-1e3..1e3_f64, -1e3..1e3_f64), 2..60), cut in 0..60_usize) {
            let (one, other) = pairs.split_at(cut.min(pairs.len()));
            let mut merged = of(one);
            merged.merge(&of(other));
            let all = of(&pairs);
            prop_assert_eq!(merged.count(), all.count());
            let (merged, all) = (merged.combined(0.5, 2.0).unwrap(), all.combined(0.5, 2.0).unwrap());
            prop_assert!((merged.mean - all.mean).abs() < 1e-8);
            prop_assert!((merged.variance - all.variance).abs() < 1e-6 * (1.0 + all.variance));
        }
    }
}
