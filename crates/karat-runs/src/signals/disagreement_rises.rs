//! The members come to disagree while the reward rises: the policy has left what they were trained on.

use super::{
    Entry, Reading, View,
    interval::{has_risen, log_ratio},
};

/// By which the members' deviation must have grown, in logarithms: a tenth.
const LIMIT: f64 = 0.1;

pub(super) const ENTRY: Entry = Entry {
    name: "disagreement_rises",
    summary: "The ensemble's members disagree more than at the beginning, while the reward rises: what is rewarded lies \
              where they were not trained.",
    formula: "v = ln(mean deviation of the members now / at the beginning); fires where v > 0.1 and the reward has risen",
    source: "ours; that ensembles disagree where a reward is exploited: Coste et al. 2023, Reward Model Ensembles Help \
             Mitigate Overoptimization",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let (now, before) = (&view.window.disagreement, &view.reference.disagreement);
    let (value, half) = log_ratio(&now.second()?, &before.second()?)?;
    let reading = Reading::above(LIMIT, value, half, [before.count(), now.count()])?;
    Some(reading.only_if(has_risen(&now.first()?, &before.first()?)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_close, bucket, read},
        *,
    };
    use crate::statistics::{Bucket, testing::observation};

    fn with(reward: f64, deviation: f64) -> Bucket {
        bucket(101, |u| {
            let mut sample = observation(reward + u);
            sample.variance = (deviation * (0.5 + u)).powi(2);
            (sample, vec![0.0, 1.0])
        })
    }

    /// By hand: means 1 and 2, each of 101 numbers spread evenly over half to one and a half of them, whose variance is
    /// 0.08585 of the mean squared: error 3·√(2·0.08585/101).
    #[test]
    fn the_value_is_the_logarithm_of_the_ratio() {
        let reading = read(&ENTRY, &with(0.0, 1.0), &with(2.0, 2.0)).unwrap();
        assert_close(reading.value, 2.0_f64.ln());
        assert_close(reading.value - reading.low, 3.0 * (2.0_f64 * 0.085_85 / 101.0).sqrt());
        assert!(reading.fires);
    }

    #[test]
    fn it_takes_a_rising_reward_and_a_real_change() {
        assert!(!read(&ENTRY, &with(0.0, 1.0), &with(0.0, 2.0)).unwrap().fires, "no reward is gained by it");
        assert!(!read(&ENTRY, &with(0.0, 1.0), &with(2.0, 1.05)).unwrap().fires);
        assert!(read(&ENTRY, &with(0.0, 0.0), &with(2.0, 0.0)).is_none(), "one member never disagrees");
    }
}
