//! The arithmetic that scoring rules share, in forms that neither overflow nor underflow where the result is finite.
//!
//! Functions take finite numbers. Where a result may still be infinite, such as a variance beyond the largest
//! `f64`, it comes back as it is and becomes a typed error when a [`Reward`](crate::domain::Reward) is made of it.

mod order;
mod reduction;
mod sigmoid;
mod statistics;

pub use order::average_ranks;
pub(crate) use order::{descending, ordinal_ranks};
pub use reduction::{Reduction, ReductionError};
pub use sigmoid::{log_probabilities, logit, sigmoid};
pub(crate) use sigmoid::{log_sigmoid, log_softmax, softmax};
pub(crate) use statistics::{DegreesOfFreedom, normal_quantile, quantile, sorted, variance};
pub use statistics::{mean, pearson, wilson_interval};

#[cfg(test)]
pub(crate) mod testing {
    //! What golden tests share.

    pub(crate) fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() <= 1e-6, "{actual} is not {expected}");
    }

    pub(crate) fn assert_all_close(actual: &[f64], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len(), "{actual:?} is not {expected:?}");
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() <= 1e-6, "{actual:?} is not {expected:?}");
        }
    }
}
