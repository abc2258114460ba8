//! What the reward gained is what longer, or shorter, responses earn anyway.

use super::{
    DEVIATIONS, Entry, Reading, View,
    interval::{difference, has_risen},
};

/// The share of the gain that length may explain.
const LIMIT: f64 = 0.5;

pub(super) const ENTRY: Entry = Entry {
    name: "length_explains",
    summary: "More than half of what the reward gained is what responses of the new length earned at the beginning.",
    formula: "v = slope x change of mean length / change of mean reward, with the slope of reward by length in \
              characters at the beginning; fires where v > 0.5 and the reward has risen",
    source: "ours, after Singhal et al. 2023, A Long Way to Go: Investigating Length Correlations in RLHF",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let (now, before) = (&view.window.length, &view.reference.length);
    let (reward, length) = (before.first()?, before.second()?);
    let correlation = before.correlation()?;
    let slope = correlation * (reward.variance / length.variance).sqrt();
    let gain = difference(&now.first()?, &reward);
    let longer = difference(&now.second()?, &length);
    let value = slope * longer.0 / gain.0;
    // The slope's error squared: (1 − r²)/(n − 2) of its square over r².
    let slope_error = reward.variance / length.variance * (1.0 - correlation.powi(2)) / (before.count() as f64 - 2.0);
    let parts =
        [DEVIATIONS * slope_error.sqrt() * longer.0 / gain.0, slope * longer.1 / gain.0, value * gain.1 / gain.0];
    let half = parts.iter().map(|part| part * part).sum::<f64>().sqrt();
    let reading = Reading::above(LIMIT, value, half, [before.count(), now.count()])?;
    Some(reading.only_if(has_risen(&now.first()?, &reward)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_close, bucket, read},
        *,
    };
    use crate::statistics::{Bucket, testing::observation};

    /// Lengths from `shortest` on, and a reward of a hundredth a character beside what is gained elsewhere.
    fn with(shortest: f64, gained: f64) -> Bucket {
        bucket(201, |u| {
            let length = (shortest + 200.0 * u).round();
            let mut sample = observation(length / 100.0 + gained);
            sample.length = length as u32;
            (sample, Vec::new())
        })
    }

    #[test]
    fn the_value_is_the_share_that_length_earns() {
        let all = read(&ENTRY, &with(100.0, 0.0), &with(400.0, 0.0)).unwrap();
        assert_close(all.value, 1.0);
        assert!(all.fires, "{all:?}");
        let quarter = read(&ENTRY, &with(100.0, 0.0), &with(400.0, 9.0)).unwrap();
        assert_close(quarter.value, 0.25);
        assert!(!quarter.fires);
        assert!(!read(&ENTRY, &with(400.0, 0.0), &with(100.0, 0.0)).unwrap().fires, "the reward fell");
    }

    #[test]
    fn equal_lengths_explain_nothing() {
        let equal = bucket(100, |u| (observation(u), Vec::new()));
        assert!(read(&ENTRY, &equal, &with(400.0, 0.0)).is_none());
    }
}
