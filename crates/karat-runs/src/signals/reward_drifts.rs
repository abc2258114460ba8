//! The rewards' distribution is another one than at the beginning, or than the one that was registered.

use super::{Entry, LEVEL, Reading, View};

/// The distance that a run that learns may cover: most of the way. Every run that learns moves.
const LIMIT: f64 = 0.8;

pub(super) const ENTRY: Entry = Entry {
    name: "reward_drifts",
    summary: "The rewards have left the distribution that they are compared with: hardly any would have been seen there. \
              A run that learns much drifts as well; register a reference that it should stay within.",
    formula: "v = largest distance between the two distribution functions (Kolmogorov-Smirnov); fires where v > 0.8",
    source: "Kolmogorov 1933, Smirnov 1939; the interval: Dvoretzky, Kiefer and Wolfowitz 1956 with Massart 1990; the \
             limit is ours",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let value = view.window.rewards.distance(&view.reference.rewards)?;
    let (before, now) = (view.reference.count(), view.window.count());
    let width = ((2.0 / (1.0 - LEVEL)).ln() / 2.0).sqrt();
    let half = width * (1.0 / (before as f64).sqrt() + 1.0 / (now as f64).sqrt());
    let reading = Reading::above(LIMIT, value, half, [before, now])?;
    Some(Reading { low: reading.low.max(0.0), high: reading.high.min(1.0), ..reading })
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{bucket, read},
        *,
    };
    use crate::statistics::testing::observation;

    /// Uniform distributions that lie half beside each other are half apart.
    #[test]
    fn the_value_is_the_distance_of_the_distributions() {
        let from = |least: f64| bucket(2000, move |u| (observation(least + u), Vec::new()));
        for (least, distance) in [(0.0, 0.0), (0.5, 0.5), (3.0, 1.0)] {
            let reading = read(&ENTRY, &from(0.0), &from(least)).unwrap();
            assert!((reading.value - distance).abs() < 0.03, "{reading:?}");
            assert_eq!(reading.fires, least > 1.0);
        }
    }
}
