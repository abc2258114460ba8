//! What is known of one model's rewards at one step, or at some steps that lie side by side.

use serde::{Deserialize, Serialize};

use super::{
    Moments, Reservoir, Samples, StepSketch,
    lanes::range,
    reservoir,
    samples::{Ensemble, Response},
};

/// The most members that are told apart; more are counted in the ensemble's figures alone.
pub(crate) const MEMBERS: usize = 8;

/// How many samples of a bucket were of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rewards at a transform's bound.
    pub at_bound: u64,
    /// Samples that lost something to truncation.
    pub cut: u64,
    /// Responses that decline to answer.
    pub refusals: u64,
    /// Samples that the run had seen before.
    pub duplicates: u64,
    /// Samples that got no reward: their request was refused or failed.
    pub unscored: u64,
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.at_bound += other.at_bound;
        self.cut += other.cut;
        self.refusals += other.refusals;
        self.duplicates += other.duplicates;
        self.unscored += other.unscored;
    }
}

/// Statistics of the steps from `first_step` to `last_step`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub(crate) first_step: u64,
    pub(crate) last_step: u64,
    /// Rewards, and the responses' lengths.
    pub(crate) length: Moments,
    /// Rewards, and the members' deviations.
    pub(crate) disagreement: Moments,
    /// The members' means, and how far the lowest lies below.
    pub(crate) gap: Moments,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) rewards: StepSketch,
    pub(crate) members: Vec<Moments>,
    pub(crate) kept: Reservoir,
    pub(crate) counts: Counts,
}

impl Bucket {
    pub(crate) fn at(step: u64) -> Self {
        Self { first_step: step, last_step: step, lowest: f64::INFINITY, highest: f64::NEG_INFINITY, ..Self::default() }
    }

    /// Takes samples in, the first of them the `number`th of its series.
    pub(crate) fn add(&mut self, number: u64, samples: Samples<'_>, duplicates: u64) {
        let Samples { rewards, responses, ensembles, members, .. } = samples;
        let length = Moments::of(rewards, |reward| reward, responses, |response| response.length().into());
        self.length.merge(&length);
        if ensembles.is_empty() {
            self.disagreement.merge(&length.of_first());
            self.gap.merge(&length.of_first());
        } else {
            let deviation = |ensemble: Ensemble| ensemble.variance.sqrt();
            self.disagreement.merge(&Moments::of(rewards, |reward| reward, ensembles, deviation));
            let below = |ensemble: Ensemble| ensemble.mean - ensemble.worst_case;
            self.gap.merge(&Moments::of(ensembles, |ensemble| ensemble.mean, ensembles, below));
        }
        let (lowest, highest) = range(rewards);
        (self.lowest, self.highest) = (self.lowest.min(lowest), self.highest.max(highest));
        // Most have none.
        if responses.iter().fold(0, |marks, response| marks | response.marks()) != 0 {
            self.counts.at_bound += count(responses, Response::at_bound);
            self.counts.cut += count(responses, Response::cut);
            self.counts.refusals += count(responses, Response::refusal);
        }
        self.counts.duplicates += duplicates;
        self.rewards.add_all(rewards);
        let width = samples.width();
        let told = width.min(MEMBERS);
        if self.members.len() < told {
            self.members.resize(told, Moments::default());
        }
        for (member, moments) in self.members.iter_mut().enumerate().take(told) {
            let scores: Vec<f64> = members.iter().skip(member).step_by(width).map(|score| f64::from(*score)).collect();
            moments.merge(&Moments::of_one(&scores));
        }
        if width > 1 {
            (number..).zip(members.chunks_exact(width)).for_each(|(number, row)| self.kept.add(number, &row[..told]));
        }
    }

    /// Takes in another bucket's samples and steps.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.merge_keeping(other, reservoir::KEPT);
    }

    pub(super) fn merge_keeping(&mut self, other: &Self, kept: usize) {
        self.first_step = self.first_step.min(other.first_step);
        self.last_step = self.last_step.max(other.last_step);
        self.length.merge(&other.length);
        self.disagreement.merge(&other.disagreement);
        self.gap.merge(&other.gap);
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
        self.rewards.merge(&other.rewards);
        if self.members.len() < other.members.len() {
            self.members.resize(other.members.len(), Moments::default());
        }
        self.members.iter_mut().zip(&other.members).for_each(|(ours, theirs)| ours.merge(theirs));
        self.kept.merge(&other.kept, kept);
        self.counts.merge(&other.counts);
    }

    /// How many samples were scored.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.length.count()
    }

    pub(crate) fn close(&mut self) {
        self.rewards.fold();
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rewards.bytes() + self.kept.bytes() + self.members.capacity() * size_of::<Moments>()
    }
}

/// How many responses have a mark.
fn count(responses: &[Response], mark: impl Fn(Response) -> u32) -> u64 {
    // No slice of them is as long that this overflows.
    responses.iter().map(|response| mark(*response)).sum::<u32>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::statistics::{Gathered, Observation};

    /// Rewards of a few samples, some of them equal, with two members of each.
    fn samples() -> impl Strategy<Value = Vec<Observation>> {
        let one = (-50..50_i32, 0.0..2.0_f64, 0..400_u32, any::<[bool; 3]>());
        let one = one.prop_map(|(reward, deviation, length, [cut, at_bound, refusal])| {
            let reward = f64::from(reward) / 7.0;
            let (mean, worst_case, variance) = (reward, reward - deviation, deviation * deviation);
            Observation { reward, mean, worst_case, variance, length, hash: 0, cut, at_bound, refusal }
        });
        let plain = |sample: &Observation| Observation { worst_case: sample.mean, variance: 0.0, ..*sample };
        let all_plain = move |(samples, yes): (Vec<Observation>, bool)| match yes {
            true => samples.iter().map(plain).collect(),
            false => samples,
        };
        (prop::collection::vec(one, 1..700), any::<bool>()).prop_map(all_plain)
    }

    fn members(samples: &[Observation]) -> Vec<f32> {
        samples.iter().flat_map(|sample| [sample.worst_case as f32, sample.mean as f32]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn many_at_once_are_as_one_by_one(samples in samples(), size in 1..300_usize) {
            let (mut together, mut alone) = (Bucket::at(3), Bucket::at(3));
            let mut first = 0;
            for part in samples.chunks(size) {
                together.add(first, Gathered::of(part, &members(part)).samples(), part.len() as u64 / 2);
                first += part.len() as u64;
            }
            for (number, sample) in (0..).zip(&samples) {
                alone.add(number, Gathered::of(&[*sample], &members(&[*sample])).samples(), 0);
            }
            alone.counts.duplicates = together.counts.duplicates;
            prop_assert_eq!(together.count(), samples.len() as u64);
            prop_assert_eq!(together.counts, alone.counts);
            prop_assert_eq!((together.lowest, together.highest), (alone.lowest, alone.highest));
            prop_assert_eq!(&together.kept, &alone.kept);
            let pairs = |bucket: &Bucket| {
                let all = [&bucket.length, &bucket.disagreement, &bucket.gap].into_iter().chain(&bucket.members);
                all.map(|moments| (moments.means(), moments.deviations())).collect::<Vec<_>>()
            };
            for (x, y) in pairs(&together).into_iter().zip(pairs(&alone)) {
                for (x, y) in [(x.0.0, y.0.0), (x.0.1, y.0.1), (x.1.0, y.1.0), (x.1.1, y.1.1)] {
                    prop_assert!((x - y).abs() <= 1e-9 * (1.0 + y.abs()), "{x} {y}");
                }
            }
            let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.reward).collect();
            sorted.sort_by(f64::total_cmp);
            for level in [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0] {
                let [found] = together.rewards.quantiles([level]).unwrap();
                // What lies between two numbers has the ranks of both, of some equal ones any of theirs. Two hundredths of all
                // to each side are the sketch's error.
                let rank = |passes: &dyn Fn(f64) -> bool| sorted.partition_point(|value| passes(*value));
                let (begins, ends) = (rank(&|value| value < found - 1e-9), rank(&|value| value <= found + 1e-9));
                let (lower, higher) = (sorted[ends.saturating_sub(1)], sorted[begins.min(sorted.len() - 1)]);
                let (low, high) = (rank(&|value| value < lower) as f64, rank(&|value| value <= higher) as f64);
                let slack = 2.0 + 0.02 * sorted.len() as f64;
                let place = level * (sorted.len() - 1) as f64;
                prop_assert!((low - slack..=high + slack).contains(&place), "{level}: {found} has {low} to {high}");
            }
        }
    }
}
