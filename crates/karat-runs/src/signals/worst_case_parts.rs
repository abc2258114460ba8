//! The worst member doesn't follow the mean: what the mean gains, some member doesn't see.

use super::{
    Entry, Reading, View,
    interval::{difference, has_risen},
};

/// Which share of the mean's gain the worst member may miss.
const MISSED: f64 = 0.25;

pub(super) const ENTRY: Entry = Entry {
    name: "worst_case_parts",
    summary: "The mean of the members rises, and the lowest member misses more than a quarter of that.",
    formula: "v = (change of (mean - worst case) - 0.25 x change of mean) / deviation of the mean at the beginning; fires \
              where v > 0 and the mean has risen",
    source: "ours; the worst case: Coste et al. 2023, Reward Model Ensembles Help Mitigate Overoptimization",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let (now, before) = (&view.window.gap, &view.reference.gap);
    let mean = before.first()?;
    let unit = mean.variance.sqrt();
    // Of one member the gap is always 0.
    if unit <= 0.0 || (now.second()?.mean <= 0.0 && before.second()?.mean <= 0.0) {
        return None;
    }
    let missed = |side: &crate::statistics::Moments| side.combined(-MISSED / unit, 1.0 / unit);
    let (value, half) = difference(&missed(now)?, &missed(before)?);
    let reading = Reading::above(0.0, value, half, [before.count(), now.count()])?;
    Some(reading.only_if(has_risen(&now.first()?, &mean)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_close, bucket, read},
        *,
    };
    use crate::statistics::{Bucket, testing::observation};

    fn with(mean: f64, gap: f64) -> Bucket {
        bucket(101, |u| {
            let mut sample = observation(0.0);
            (sample.mean, sample.worst_case) = (mean + u, mean + u - gap);
            (sample, vec![0.0, 1.0])
        })
    }

    /// By hand: the mean gains 2 and the gap 1, so the worst member misses 1 − 0.25·2 more than it may; the variance of 0,
    /// 0.01, … 1 is 0.08585.
    #[test]
    fn the_value_is_what_the_worst_member_misses() {
        let reading = read(&ENTRY, &with(0.0, 1.0), &with(2.0, 2.0)).unwrap();
        assert_close(reading.value, 0.5 / 0.085_85_f64.sqrt());
        assert!(reading.fires);
    }

    #[test]
    fn a_worst_case_that_follows_is_no_alarm() {
        assert!(!read(&ENTRY, &with(0.0, 1.0), &with(2.0, 1.2)).unwrap().fires);
        assert!(!read(&ENTRY, &with(0.0, 1.0), &with(-2.0, 2.0)).unwrap().fires, "the mean fell");
        assert!(read(&ENTRY, &with(0.0, 0.0), &with(2.0, 0.0)).is_none(), "one member");
    }
}
