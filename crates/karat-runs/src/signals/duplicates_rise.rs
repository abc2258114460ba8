//! Responses repeat: the policy has collapsed onto a few.

use super::{Entry, Reading, View, interval::share_rises};

/// By which the share may rise.
const LIMIT: f64 = 0.1;

pub(super) const ENTRY: Entry = Entry {
    name: "duplicates_rise",
    summary: "The share of samples that the run had seen before has risen by more than a tenth: the policy repeats itself.",
    formula: "v = share of samples seen before, now less at the beginning; fires where v > 0.1",
    source: "ours; the interval: Newcombe 1998",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    share_rises([view.reference, view.window], LIMIT, |counts| counts.duplicates)
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
        bucket.counts.duplicates = (share * 200.0) as u64;
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
