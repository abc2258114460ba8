//! The few numbers by which batches are formed and requests admitted.

use std::{num::NonZeroUsize, time::Duration};

use karat_runtime::Shapes;

use super::{Priority, trial::Company};

/// How a batch is formed.
///
/// The defaults suit an encoder in fp32 on processor cores, where small groups of similar length reach the most
/// tokens a second and a long text alone is as good as a batch. [`super::calibrate`] measures better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The most positions, padding included, of a batch of several samples. A longer sample runs alone.
    pub budget: usize,
    /// The most samples of a batch; 1 for graphs whose scores depend on the batch.
    pub max_batch: usize,
    /// How many of the jobs that are due first a batch is chosen from.
    pub window: usize,
    /// What a pass costs beyond its tokens, measured in tokens: a job joins a batch when the padding that it brings
    /// is less than the pass that it saves.
    pub overhead: usize,
    /// The most padding that a batch may hold while much waits, in percent of its positions; 100 sets no bound.
    ///
    /// `overhead` alone bounds what each job adds, which adds up where passes are dear and batches large, as on a
    /// GPU. While little waits, one padded pass is still better than two.
    pub padding_percent: usize,
    /// The shapes that passes are rounded up to, where they are: a batch whose number of samples would be padded by more
    /// than `overhead` leaves some of them for the next.
    pub shapes: Option<Shapes>,
    /// What a batch is formed by.
    pub grouping: Grouping,
    /// How long a job may be overtaken by shorter ones at most, however long it is.
    pub age_bound: Duration,
    /// By how much a job of one priority goes ahead of a job of the next lower.
    pub priority_step: Duration,
    /// How many waiting jobs, while nothing runs, are faster one after another on all cores than side by side on
    /// one core each. Only matters where there is an executor for that.
    pub single_jobs: usize,
}

/// What a batch is formed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Samples of similar length, since all are padded to the longest.
    Length,
    /// Samples of exactly one length, since the graph's scores don't bear padding.
    EqualLength,
    /// Samples that begin alike, since that is computed once. `budget` bounds what the others add to the first, each token
    /// that several begin with counted once; samples that have little in common share a batch only while it is short, or
    /// where there are as many of them as are computed side by side.
    Beginning {
        /// How many rows that don't build on each other are computed side by side.
        abreast: NonZeroUsize,
    },
    /// Whatever is due first, since nothing is padded. `budget` bounds all of it.
    Packed {
        /// Of how many tokens the pieces are that are computed once where samples begin alike; `None` where nothing is.
        shared: Option<NonZeroUsize>,
    },
}

/// A request of so many tokens or more is overtaken by shorter ones for as long as any is.
const PATIENT_TOKENS: u32 = 512;

impl Default for Policy {
    fn default() -> Self {
        Self {
            budget: 512,
            max_batch: 32,
            window: 64,
            overhead: 16,
            padding_percent: 100,
            shapes: None,
            grouping: Grouping::Length,
            age_bound: Duration::from_secs(10),
            priority_step: Duration::from_secs(30),
            single_jobs: 1,
        }
    }
}

impl Policy {
    /// The same, but samples get no other company than this.
    #[must_use]
    pub(crate) fn in_company(self, company: Company) -> Self {
        match company {
            Company::Any => self,
            Company::EqualLengths => Self { grouping: Grouping::EqualLength, shapes: None, ..self },
            Company::Alone => Self { max_batch: 1, shapes: None, ..self },
        }
    }

    /// How long after its arrival a job is due: from then on only jobs of its client that were due earlier go before it.
    ///
    /// Short requests are due sooner, so that one doesn't wait behind a flood of long ones; a job's due time never
    /// moves, so that no stream of short ones keeps it waiting for ever. `tokens` are those of its request up to its own
    /// end. A job that may wait for no longer than `bound` is overtaken for half of that time at most.
    #[must_use]
    pub(crate) fn due_after(&self, tokens: usize, priority: Priority, bound: Option<Duration>) -> Duration {
        let tokens = u32::try_from(tokens).map_or(PATIENT_TOKENS, |tokens| tokens.min(PATIENT_TOKENS));
        let longest = self.age_bound.min(bound.map_or(Duration::MAX, |bound| bound / 2));
        let steps = self.priority_step.saturating_mul(u32::from(priority.level()));
        (longest.saturating_mul(tokens) / PATIENT_TOKENS).saturating_add(steps)
    }

    /// Before or behind which jobs of other clients a job goes, whatever they were served: one that has waited for
    /// [`Self::priority_step`] counts as one of the next higher priority.
    #[must_use]
    pub(crate) fn level(&self, priority: Priority, waited: Duration) -> u8 {
        let steps = waited.as_nanos().checked_div(self.priority_step.as_nanos()).unwrap_or(0);
        priority.level().saturating_sub(u8::try_from(steps).unwrap_or(u8::MAX))
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueLimits {
    /// The most tokens that may wait. A request that is larger is admitted only while nothing waits.
    pub queued_tokens: usize,
    /// The longest time that a request may be expected to wait; without it only tokens are bounded.
    pub wait: Option<Duration>,
    /// How many tokens a second to reckon with until passes have been measured.
    pub tokens_per_second: Option<f64>,
}

impl Default for QueueLimits {
    /// Half a million tokens: a minute or two of work for a small encoder on two cores.
    fn default() -> Self {
        Self { queued_tokens: 1 << 19, wait: None, tokens_per_second: None }
    }
}
