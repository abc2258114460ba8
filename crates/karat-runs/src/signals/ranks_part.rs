//! The members come to rank samples differently.

use karat_rules::numeric::{average_ranks, pearson};

use super::{DEVIATIONS, Entry, Reading, View};
use crate::statistics::Reservoir;

/// By which the agreement must have fallen, on Fisher's scale.
const LIMIT: f64 = 0.1;

pub(super) const ENTRY: Entry = Entry {
    name: "ranks_part",
    summary: "The members rank the latest samples less alike than those of the beginning.",
    formula: "v = atanh(rho at the beginning) - atanh(rho now), rho the mean of Spearman's correlations over all pairs of \
              members; fires where v > 0.1",
    source: "ours; agreement of rankings: Wang et al. 2024, CREAM; the error of Spearman's rho on Fisher's scale: Fieller, \
             Hartley and Pearson 1957",
    read,
};

fn read(view: &View<'_>) -> Option<Reading> {
    let (now, before) = (&view.window.kept, &view.reference.kept);
    let value = agreement(before)?.atanh() - agreement(now)?.atanh();
    // The pairs of members are not independent: they count as one.
    let error = |kept: &Reservoir| 1.06 / (kept.len() as f64 - 3.0);
    let half = DEVIATIONS * (error(before) + error(now)).sqrt();
    Reading::above(LIMIT, value, half, [before.len() as u64, now.len() as u64])
}

/// The mean of Spearman's correlations over all pairs of members; none of one member, or where one is constant.
fn agreement(kept: &Reservoir) -> Option<f64> {
    let ranks: Vec<Vec<f64>> = kept.columns().iter().map(|column| average_ranks(column)).collect();
    let mut correlations = Vec::new();
    for (index, first) in ranks.iter().enumerate() {
        for second in &ranks[..index] {
            correlations.push(pearson(first, second)?);
        }
    }
    // Full agreement lies at infinity on Fisher's scale.
    (!correlations.is_empty())
        .then(|| (correlations.iter().sum::<f64>() / correlations.len() as f64).clamp(-0.999, 0.999))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{assert_close, bucket, read},
        *,
    };
    use crate::statistics::{Bucket, testing::observation};

    fn with(second: impl Fn(f64) -> f64) -> Bucket {
        bucket(64, |u| (observation(u), vec![u as f32, second(u) as f32]))
    }

    /// The ranks of a list and of one whose halves are swapped: `scipy.stats.spearmanr(range(64), [*range(32, 64),
    /// *range(32)])` is −0.500366…
    #[test]
    fn the_value_is_the_loss_of_agreement_on_fishers_scale() {
        let swapped = with(|u| if u < 0.5 { u + 0.51 } else { u - 0.5 });
        assert_close(agreement(&swapped.kept).unwrap(), -0.500_366_300_366);
        let reading = read(&ENTRY, &with(|u| u * u), &swapped).unwrap();
        assert_close(reading.value, 0.999_f64.atanh() + 0.500_366_300_366_f64.atanh());
        assert_close(reading.high - reading.value, 3.0 * (2.0_f64 * 1.06 / 61.0).sqrt());
        assert!(reading.fires);
        assert!(!read(&ENTRY, &swapped, &with(|u| u)).unwrap().fires, "agreeing more is no alarm");
    }

    #[test]
    fn one_member_or_a_constant_one_ranks_nothing() {
        let one = bucket(64, |u| (observation(u), vec![u as f32]));
        assert!(read(&ENTRY, &one, &one).is_none());
        assert!(read(&ENTRY, &with(|_| 1.0), &with(|u| u)).is_none());
    }
}
