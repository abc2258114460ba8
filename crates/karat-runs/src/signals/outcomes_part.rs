//! What came of the samples, as people, tests or benchmarks said later, doesn't follow the reward.

use super::{
    Entry, Reading, View,
    interval::{has_risen, parting},
};

/// By how many standard deviations of the beginning the reward may run ahead.
const LIMIT: f64 = 0.25;

pub(super) const ENTRY: Entry = Entry {
    name: "outcomes_part",
    summary: "The reward has risen, and the outcomes that were reported for the same samples haven't risen as much.",
    formula: "v = change of reward / its deviation at the beginning - change of outcome / its deviation at the beginning; \
              fires where v > 0.25 and the reward has risen",
    source: "ours; the question: Lambert and Calandra 2023, The Alignment Ceiling: Objective Mismatch in Reinforcement \
             Learning from Human Feedback",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let sides = view.outcomes?;
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

    #[test]
    fn rewards_that_rise_without_successes_are_told() {
        let calm = bucket(100, |u| (observation(u), Vec::new()));
        let half = |u: f64| f64::from(u >= 0.5);
        let told = |rise: f64, success: &dyn Fn(f64) -> f64| {
            let before = moments(200, |u| (u, half(u)));
            let window = moments(200, |u| (u + rise, success(u)));
            let outcomes = Some(Sides { reference: &before, window: &window });
            read(&View { reference: &calm, window: &calm, judge: None, outcomes, sensitivity: None }).unwrap()
        };
        let parted = told(1.0, &half);
        // One over the sample deviation of 200 numbers spread evenly from 0 to 1.
        assert_close(parted.value, 1.0 / (200.0_f64 * 201.0 / (12.0 * 199.0 * 199.0)).sqrt());
        assert!(parted.fires);
        assert!(!told(0.2, &|u| f64::from(u >= 0.2)).fires, "successes rose with it");
    }
}
