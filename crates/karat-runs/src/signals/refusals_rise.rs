//! Responses come to decline.

use super::{Entry, Reading, View, interval::share_rises};

/// By which the share may rise.
const LIMIT: f64 = 0.1;

pub(super) const ENTRY: Entry = Entry {
    name: "refusals_rise",
    summary: "The share of responses that begin by declining to answer has risen by more than a tenth.",
    formula: "v = share of responses that begin with one of a short list of phrases, now less at the beginning; fires where v > 0.1",
    source: "ours; the interval: Newcombe 1998",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    share_rises([view.reference, view.window], LIMIT, |counts| counts.refusals)
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
        bucket.counts.refusals = (share * 200.0) as u64;
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
