//! Scored samples side by side, in as little memory as they need. What a request leaves may be written by one core and
//! read by another, and a cache line that both touch costs more than the sums over what stands in it.

use std::mem;

/// One scored sample, without its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The reward that was given.
    pub reward: f64,
    /// The mean of the members.
    pub mean: f64,
    /// The lowest member.
    pub worst_case: f64,
    /// The population variance of the members.
    pub variance: f64,
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

impl Observation {
    /// Zero where the members say nothing beside the reward, as the only one of a model whose scores nothing transforms.
    fn beside_reward(&self) -> u64 {
        let [reward, mean, worst_case, variance] =
            [self.reward, self.mean, self.worst_case, self.variance].map(f64::to_bits);
        (mean ^ reward) | (worst_case ^ reward) | variance
    }
}

/// A response's length in characters, and what else is counted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response(u32);

impl Response {
    const CUT: u32 = 31;
    const AT_BOUND: u32 = 30;
    const REFUSAL: u32 = 29;
    /// The greatest length that is told from greater ones.
    const LONGEST: u32 = (1 << Self::REFUSAL) - 1;

    fn of(sample: &Observation) -> Self {
        let Observation { length, cut, at_bound, refusal, .. } = *sample;
        let marks = u32::from(cut) << Self::CUT | u32::from(at_bound) << Self::AT_BOUND;
        Self(length.min(Self::LONGEST) | marks | u32::from(refusal) << Self::REFUSAL)
    }

    /// All its marks, in places of their own; 0 where it has none.
    pub(super) fn marks(self) -> u32 {
        self.0 & !Self::LONGEST
    }

    /// Its length in characters.
    pub(super) fn length(self) -> u32 {
        self.0 & Self::LONGEST
    }

    /// 1 where something was cut off before it was scored, and else 0.
    pub(super) fn cut(self) -> u32 {
        self.0 >> Self::CUT & 1
    }

    /// 1 where its reward lies at a bound, and else 0.
    pub(super) fn at_bound(self) -> u32 {
        self.0 >> Self::AT_BOUND & 1
    }

    /// 1 where it declines to answer, and else 0.
    pub(super) fn refusal(self) -> u32 {
        self.0 >> Self::REFUSAL & 1
    }
}

/// What the members of an ensemble say of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ensemble {
    pub(super) mean: f64,
    pub(super) worst_case: f64,
    pub(super) variance: f64,
}

/// Samples that wait to be taken in: what is summed lies side by side, so that one instruction takes in several of them.
#[derive(Debug, Default)]
pub struct Gathered {
    rewards: Vec<f64>,
    hashes: Vec<u64>,
    responses: Vec<Response>,
    ensembles: Vec<Ensemble>,
    members: Vec<f32>,
}

/// What is kept of each sample of a kind, and how many members are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kind {
    has_ensembles: bool,
    members: usize,
}

/// Some samples that lie side by side, all of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Samples<'a> {
    pub(super) rewards: &'a [f64],
    pub(super) hashes: &'a [u64],
    pub(super) responses: &'a [Response],
    /// What the members say, or nothing where each sample's reward says all of it.
    pub(super) ensembles: &'a [Ensemble],
    /// The members' scores, as many for each sample; empty where members aren't told apart.
    pub(super) members: &'a [f32],
}

impl Gathered {
    /// Samples with their members' scores, as many for each or none at all.
    #[must_use]
    pub fn of(samples: &[Observation], members: &[f32]) -> Self {
        let mut gathered = Self::default();
        gathered.extend(samples.iter().copied(), Some(members.iter().copied()));
        gathered
    }

    /// Takes in samples with their members' scores where those are told apart, as many for each; how many they are, and of
    /// which kind.
    pub fn extend(
        &mut self,
        samples: impl Iterator<Item = Observation> + Clone,
        members: Option<impl Iterator<Item = f32>>,
    ) -> (usize, Kind) {
        let before = self.rewards.len();
        let mut beside_rewards = 0;
        // All columns in one walk: samples lie far apart in memory.
        let mut columns = (mem::take(&mut self.rewards), mem::take(&mut self.hashes), mem::take(&mut self.responses));
        columns.extend(samples.clone().map(|sample| {
            beside_rewards |= sample.beside_reward();
            (sample.reward, sample.hash, Response::of(&sample))
        }));
        (self.rewards, self.hashes, self.responses) = columns;
        let has_ensembles = beside_rewards != 0;
        if has_ensembles {
            self.ensembles.extend(samples.map(|Observation { mean, worst_case, variance, .. }| Ensemble {
                mean,
                worst_case,
                variance,
            }));
        }
        let count = self.rewards.len() - before;
        let members = members.map_or(0, |members| {
            let before = self.members.len();
            self.members.extend(members);
            (self.members.len() - before).checked_div(count).unwrap_or(0)
        });
        (count, Kind { has_ensembles, members })
    }

    /// All of them, where they are of one kind.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        self.in_parts().0
    }

    /// The same by parts, each of one kind.
    pub(crate) fn in_parts(&self) -> Parts<'_> {
        Parts(Samples {
            rewards: &self.rewards,
            hashes: &self.hashes,
            responses: &self.responses,
            ensembles: &self.ensembles,
            members: &self.members,
        })
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.rewards.len()
    }

    /// How many bytes they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rewards)
            + size_of_val(&*self.hashes)
            + size_of_val(&*self.responses)
            + size_of_val(&*self.ensembles)
            + size_of_val(&*self.members)
    }

    /// Forgets them, but not their room.
    pub fn clear(&mut self) {
        self.rewards.clear();
        self.hashes.clear();
        self.responses.clear();
        self.ensembles.clear();
        self.members.clear();
    }
}

/// Gathered samples that are taken out in the order in which they came.
#[derive(Debug)]
pub(crate) struct Parts<'a>(Samples<'a>);

impl<'a> Parts<'a> {
    /// The next samples: so many, which are of that kind.
    pub(crate) fn next(&mut self, count: usize, kind: Kind) -> Samples<'a> {
        let Self(Samples { rewards, hashes, responses, ensembles, members }) = self;
        Samples {
            rewards: rewards.split_off(..count).unwrap_or_default(),
            hashes: hashes.split_off(..count).unwrap_or_default(),
            responses: responses.split_off(..count).unwrap_or_default(),
            ensembles: ensembles.split_off(..if kind.has_ensembles { count } else { 0 }).unwrap_or_default(),
            members: members.split_off(..count * kind.members).unwrap_or_default(),
        }
    }
}

impl Samples<'_> {
    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.rewards.len()
    }

    /// How many members are told apart.
    pub(super) fn width(&self) -> usize {
        self.members.len().checked_div(self.count()).unwrap_or(0)
    }

    /// Takes the first so many out.
    pub(crate) fn split_off(&mut self, count: usize) -> Self {
        let kind = Kind { has_ensembles: !self.ensembles.is_empty(), members: self.width() };
        let mut parts = Parts(*self);
        let first = parts.next(count, kind);
        *self = parts.0;
        first
    }

    /// Their rewards.
    pub(crate) fn rewards(&self) -> &[f64] {
        self.rewards
    }
}
