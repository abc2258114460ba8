//! Rewards lie at a bound that a transform holds them to.

use super::{Entry, Reading, View, interval::share_rises};

/// By which the share may rise.
const LIMIT: f64 = 0.1;

pub(super) const ENTRY: Entry = Entry {
    name: "bounds_reached",
    summary: "The share of rewards that lie at the bound of a clip has risen by more than a tenth: there is nothing more to learn from them.",
    formula: "v = share of rewards at a clip's bound, now less at the beginning; fires where v > 0.1",
    source: "ours; the interval: Newcombe 1998",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    share_rises([view.reference, view.window], LIMIT, |counts| counts.at_bound)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{bucket, read},
        *,
    };
    use crate::statistics::{Bucket, testing::observation};

    fn with(share: f64) -> Bucket {
        let mut bucket = bucket(200, |u| (observation(u), Vec::new()));
        bucket.counts.at_bound = (share * 200.0) as u64;
        bucket
    }

    #[test]
    fn a_share_that_rises_is_told_and_one_that_was_there_is_not() {
        let risen = read(&ENTRY, &with(0.05), &with(0.5)).unwrap();
        assert!((risen.value - 0.45).abs() < 1e-9 && risen.fires, "{risen:?}");
        assert!(!read(&ENTRY, &with(0.5), &with(0.5)).unwrap().fires);
        assert!(!read(&ENTRY, &with(0.0), &with(0.1)).unwrap().fires);
    }
}
