//! Scored samples side by side, in as little memory as they need. What a request leaves is written by one core and read by
//! another, and a cache line that both touch costs more than the sums over what stands in it.

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
    /// Whether the members say nothing beside the reward, as the only one of a model whose scores nothing transforms.
    fn is_plain(&self) -> bool {
        let [reward, mean, worst_case] = [self.reward, self.mean, self.worst_case].map(f64::to_bits);
        // All of it at once: nearly always all of it holds.
        (mean == reward) & (worst_case == reward) & (self.variance == 0.0)
    }
}

/// What every sample has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) reward: f64,
    pub(super) hash: u64,
    pub(super) length: u32,
    pub(super) cut: bool,
    pub(super) at_bound: bool,
    pub(super) refusal: bool,
}

/// What the members of an ensemble say of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ensemble {
    pub(super) mean: f64,
    pub(super) worst_case: f64,
    pub(super) variance: f64,
}

/// Samples that wait to be taken in.
#[derive(Debug, Default)]
pub struct Gathered {
    samples: Vec<Sample>,
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
    pub(super) all: &'a [Sample],
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
        gathered.extend(samples.iter().copied(), members.iter().copied());
        gathered
    }

    /// Takes in samples with their members' scores, as many for each or none at all; how many they are, and of which kind.
    pub fn extend(
        &mut self,
        samples: impl Iterator<Item = Observation> + Clone,
        members: impl Iterator<Item = f32>,
    ) -> (usize, Kind) {
        let before = (self.samples.len(), self.members.len());
        let mut has_ensembles = false;
        self.samples.extend(samples.clone().map(|sample| {
            has_ensembles |= !sample.is_plain();
            let Observation { reward, hash, length, cut, at_bound, refusal, .. } = sample;
            Sample { reward, hash, length, cut, at_bound, refusal }
        }));
        if has_ensembles {
            self.ensembles.extend(samples.map(|Observation { mean, worst_case, variance, .. }| Ensemble {
                mean,
                worst_case,
                variance,
            }));
        }
        self.members.extend(members);
        let count = self.samples.len() - before.0;
        let members = (self.members.len() - before.1).checked_div(count).unwrap_or(0);
        (count, Kind { has_ensembles, members })
    }

    /// All of them, where they are of one kind.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        self.in_parts().0
    }

    /// The same by parts, each of one kind.
    pub(crate) fn in_parts(&self) -> Parts<'_> {
        Parts(Samples { all: &self.samples, ensembles: &self.ensembles, members: &self.members })
    }

    /// How many bytes they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.samples) + size_of_val(&*self.ensembles) + size_of_val(&*self.members)
    }

    /// Forgets them, but not their room.
    pub fn clear(&mut self) {
        self.samples.clear();
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
        let Self(Samples { all, ensembles, members }) = self;
        Samples {
            all: all.split_off(..count).unwrap_or_default(),
            ensembles: ensembles.split_off(..if kind.has_ensembles { count } else { 0 }).unwrap_or_default(),
            members: members.split_off(..count * kind.members).unwrap_or_default(),
        }
    }
}

impl Samples<'_> {
    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
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
    pub(crate) fn rewards(&self) -> impl Iterator<Item = f64> + Clone {
        self.all.iter().map(|sample| sample.reward)
    }
}
