//! What is known of one model's rewards at one step, or at some steps that lie side by side.

use serde::{Deserialize, Serialize};

use super::{Moments, Reservoir, Sketch, reservoir};

/// The most members that are told apart; more are counted in the ensemble's figures alone.
pub(crate) const MEMBERS: usize = 8;

/// One scored sample, without its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The reward that was given.
    pub reward: f64,
    /// The mean of the members.
    pub mean: f64,
    /// The lowest member.
    pub worst_case: f64,
    /// The population deviation of the members.
    pub deviation: f64,
    /// The response's length in characters.
    pub length: u32,
    /// Tells the sample from others: a hash of its text.
    pub hash: u64,
    /// Whether something was cut off before it was scored.
    pub cut: bool,
    /// Whether the reward lies at a bound that a transform holds it to.
    pub at_bound: bool,
    /// Whether the response begins like one that declines to answer.
    pub refusal: bool,
}

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
    pub(crate) rewards: Sketch,
    pub(crate) members: Vec<Moments>,
    pub(crate) kept: Reservoir,
    pub(crate) counts: Counts,
}

impl Bucket {
    pub(crate) fn at(step: u64) -> Self {
        Self { first_step: step, last_step: step, lowest: f64::INFINITY, highest: f64::NEG_INFINITY, ..Self::default() }
    }

    /// Takes a sample in, the `number`th of its series.
    pub(crate) fn add(&mut self, number: u64, sample: &Observation, members: &[f32], duplicate: bool) {
        self.length.add(sample.reward, f64::from(sample.length));
        self.disagreement.add(sample.reward, sample.deviation);
        self.gap.add(sample.mean, sample.mean - sample.worst_case);
        self.lowest = self.lowest.min(sample.reward);
        self.highest = self.highest.max(sample.reward);
        self.rewards.add(sample.reward);
        let members = &members[..members.len().min(MEMBERS)];
        if self.members.len() < members.len() {
            self.members.resize(members.len(), Moments::default());
        }
        for (moments, score) in self.members.iter_mut().zip(members) {
            moments.add(f64::from(*score), 0.0);
        }
        self.kept.add(number, members);
        self.counts.at_bound += u64::from(sample.at_bound);
        self.counts.cut += u64::from(sample.cut);
        self.counts.refusals += u64::from(sample.refusal);
        self.counts.duplicates += u64::from(duplicate);
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
        self.rewards.close();
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rewards.bytes() + self.kept.bytes() + self.members.capacity() * size_of::<Moments>()
    }
}
