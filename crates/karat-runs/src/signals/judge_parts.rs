//! A second judge, whose scores the policy never sees, doesn't follow the reward.

use super::{
    Entry, Reading, View,
    interval::{has_risen, parting},
};

/// By how many standard deviations of the beginning the reward may run ahead.
const LIMIT: f64 = 0.25;

pub(super) const ENTRY: Entry = Entry {
    name: "judge_parts",
    summary: "The reward has risen, and a second judge's score of the same samples hasn't risen as much.",
    formula: "v = change of reward / its deviation at the beginning - change of the judge's score / its deviation at the \
              beginning; fires where v > 0.25 and the reward has risen",
    source: "ours; that a proxy and a held-out judge part: Gao et al. 2022, Scaling Laws for Reward Model Overoptimization",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let sides = view.judge?;
    let (value, half) = parting(sides.window, sides.reference)?;
    let reading = Reading::above(LIMIT, value, half, [sides.reference.count(), sides.window.count()])?;
    Some(reading.only_if(has_risen(&sides.window.first()?, &sides.reference.first()?)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Sides,
            testing::{assert_close, bucket, moments},
        },
        *,
    };
    use crate::statistics::testing::observation;

    fn told(now: (f64, f64)) -> Reading {
        let calm = bucket(100, |u| (observation(u), Vec::new()));
        let before = moments(101, |u| (u, 10.0 * u));
        let window = moments(101, |u| (now.0 + u, now.1 + 10.0 * u));
        let judge = Some(Sides { reference: &before, window: &window });
        read(&View { reference: &calm, window: &calm, judge, outcomes: None, sensitivity: None }).unwrap()
    }

    /// By hand: in units of √0.08585 and 10·√0.08585, the sample variances of 0, 0.01, … 1 and its tenfold.
    #[test]
    fn the_value_is_how_far_the_reward_runs_ahead() {
        let parted = told((2.0, 5.0));
        assert_close(parted.value, 1.5 / 0.085_85_f64.sqrt());
        assert!(parted.fires);
        assert!(!told((2.0, 20.0)).fires, "the judge follows");
        assert!(!told((-2.0, -25.0)).fires, "the reward fell");
    }
}
