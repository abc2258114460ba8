//! Statistics of rewards that come one by one: bounded in memory, mergeable, and the same whenever they are read.

mod bucket;
mod centroids;
mod lanes;
mod moments;
mod pairs;
mod ranks;
mod reservoir;
mod samples;
mod series;
mod sketch;

pub use bucket::{Bucket, Counts};
pub use moments::{Mean, Moments};
pub use pairs::{PairBucket, PairSeries};
pub use reservoir::Reservoir;
pub use samples::{Gathered, Kind, Observation, Samples};
pub use series::{Merge, Series, Steps};
pub use sketch::{StepSketch, TaskSketch};

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of statistics and signals share.

    use super::Observation;

    /// A sample of one member with that reward.
    pub(crate) fn observation(reward: f64) -> Observation {
        Observation {
            reward,
            mean: reward,
            worst_case: reward,
            variance: 0.0,
            length: 10,
            hash: 0,
            cut: false,
            at_bound: false,
            refusal: false,
        }
    }
}
