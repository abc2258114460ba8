//! The reward runs ahead of what was said of the same samples elsewhere: by a second judge, or by outcomes that came later.

use super::{
    Entry, Reading, Sides,
    interval::{difference, has_risen},
};
use crate::statistics::Moments;

/// By how many standard deviations of the beginning the reward may run ahead.
const LIMIT: f64 = 0.25;

/// A second judge, whose scores the policy never sees, doesn't follow the reward.
pub(super) const JUDGE_PARTS: Entry = Entry {
    name: "judge_parts",
    summary: "The reward has risen, and a second judge's score of the same samples hasn't risen as much.",
    formula: "v = change of reward / its deviation at the beginning - change of the judge's score / its deviation at the \
              beginning; fires where v > 0.25 and the reward has risen",
    source: "ours; that a proxy and a held-out judge part: Gao et al. 2022, Scaling Laws for Reward Model Overoptimization",
    read: |view| parting(view.judge?),
};

/// What came of the samples, as people, tests or benchmarks said later, doesn't follow the reward.
pub(super) const OUTCOMES_PART: Entry = Entry {
    name: "outcomes_part",
    summary: "The reward has risen, and the outcomes that were reported for the same samples haven't risen as much.",
    formula: "v = change of reward / its deviation at the beginning - change of outcome / its deviation at the beginning; \
              fires where v > 0.25 and the reward has risen",
    source: "ours; the question: Lambert and Calandra 2023, The Alignment Ceiling: Objective Mismatch in Reinforcement \
             Learning from Human Feedback",
    read: |view| parting(view.outcomes?),
};

/// By how much the rewards have risen more than what stands beside them, each in standard deviations of the beginning; none
/// where one of them is constant.
///
/// `v = Δx/s_x − Δy/s_y`; samples bring both, so that its error is that of the one number `x/s_x − y/s_y`.
fn parting(Sides { reference, window }: Sides<'_>) -> Option<Reading> {
    let (rewards, others) = (reference.first()?, reference.second()?);
    let (x, y) = (rewards.variance.sqrt(), others.variance.sqrt());
    if !(x > 0.0 && y > 0.0) {
        return None;
    }
    let apart = |moments: &Moments| moments.combined(1.0 / x, -1.0 / y);
    let (value, half) = difference(&apart(window)?, &apart(reference)?);
    let reading = Reading::above(LIMIT, value, half, [reference.count(), window.count()])?;
    Some(reading.only_if(has_risen(&window.first()?, &rewards)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            View,
            testing::{assert_close, bucket, moments},
        },
        *,
    };
    use crate::statistics::testing::observation;

    /// What both signals tell of pairs at the beginning and of later ones, each with the other's pairs missing.
    fn told(before: &Moments, window: &Moments) -> [Reading; 2] {
        let calm = bucket(100, |u| (observation(u), Vec::new()));
        let sides = Some(Sides { reference: before, window });
        let none = View { reference: &calm, window: &calm, judge: None, outcomes: None, sensitivity: None };
        let views = [(JUDGE_PARTS, View { judge: sides, ..none }), (OUTCOMES_PART, View { outcomes: sides, ..none })];
        views.map(|(entry, view)| (entry.read)(&view).unwrap())
    }

    /// By hand: in units of √0.08585 and 10·√0.08585, the sample variances of 0, 0.01, … 1 and its tenfold.
    #[test]
    fn the_value_is_how_far_the_reward_runs_ahead() {
        let told =
            |now: (f64, f64)| told(&moments(101, |u| (u, 10.0 * u)), &moments(101, |u| (now.0 + u, now.1 + 10.0 * u)));
        for parted in told((2.0, 5.0)) {
            assert_close(parted.value, 1.5 / 0.085_85_f64.sqrt());
            assert!(parted.fires);
        }
        assert!(told((2.0, 20.0)).iter().all(|reading| !reading.fires), "what stands beside it follows");
        assert!(told((-2.0, -25.0)).iter().all(|reading| !reading.fires), "the reward fell");
    }

    #[test]
    fn rewards_that_rise_without_successes_are_told() {
        let half = |u: f64| f64::from(u >= 0.5);
        let told = |rise: f64, success: &dyn Fn(f64) -> f64| {
            told(&moments(200, |u| (u, half(u))), &moments(200, |u| (u + rise, success(u))))
        };
        for parted in told(1.0, &half) {
            // One over the sample deviation of 200 numbers spread evenly from 0 to 1.
            assert_close(parted.value, 1.0 / (200.0_f64 * 201.0 / (12.0 * 199.0 * 199.0)).sqrt());
            assert!(parted.fires);
        }
        let followed = told(0.2, &|u| f64::from(u >= 0.2));
        assert!(followed.iter().all(|reading| !reading.fires), "successes rose with it");
    }
}
