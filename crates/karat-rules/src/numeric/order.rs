//! Orders and ranks. Ties keep the order of their indices, so that every result can be repeated.

use std::cmp::Ordering;

fn compare(a: f64, b: f64) -> Ordering {
    // Zero and minus zero tie; `total_cmp` would part them.
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// The indices from the highest value to the lowest; ties by the lowest index.
pub(crate) fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| compare(values[*b], values[*a]));
    order
}

/// The rank of each value, 1 for the lowest; tied values share the mean of their ranks.
#[must_use]
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| compare(values[*a], values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in order.chunk_by(|a, b| compare(values[*a], values[*b]).is_eq()) {
        let rank = start as f64 + (tied.len() + 1) as f64 / 2.0;
        for index in tied {
            ranks[*index] = rank;
        }
        start += tied.len();
    }
    ranks
}

/// The rank of each value, 1 for the lowest; among tied values the earlier index comes first.
pub(crate) fn ordinal_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| compare(values[*a], values[*b]));
    let mut ranks = vec![0.0; values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        ranks[index] = (rank + 1) as f64;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn ties_keep_their_index_or_share_their_rank() {
        let values = [2.0, 1.0, 2.0, 0.0, -0.0];
        assert_eq!(descending(&values), [0, 2, 1, 3, 4]);
        assert_all_close(&average_ranks(&values), &[4.5, 3.0, 4.5, 1.5, 1.5]);
        assert_all_close(&ordinal_ranks(&values), &[4.0, 3.0, 5.0, 1.0, 2.0]);
    }
}
