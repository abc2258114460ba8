//! Which jobs make the next batch: a pure decision, told the time by its caller.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    time::{Duration, Instant},
};

use super::{ClientId, Grouping, Policy, Priority, affinity, turns::Turns};

/// Names a job within one planner. Ids grow in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    /// None comes after it.
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// A job as the planner sees it.
#[derive(Debug, Clone)]
pub struct WaitingJob<T> {
    /// Its length.
    pub tokens: usize,
    /// The tokens of its request up to its own end: a request of many samples is as patient as a long one.
    pub request_tokens: usize,
    /// Whose it is.
    pub client: ClientId,
    /// Which jobs it goes before.
    pub priority: Priority,
    /// When it is no longer wanted.
    pub deadline: Option<Instant>,
    /// How long its client may be expected to wait, where that is bounded.
    pub bound: Option<Duration>,
    /// Whatever belongs to it.
    pub payload: T,
}

impl<T> WaitingJob<T> {
    /// A job of normal priority, alone in a request of the server's own, that may wait for ever.
    #[must_use]
    pub fn new(tokens: usize, payload: T) -> Self {
        let (client, priority) = (ClientId::default(), Priority::default());
        Self { tokens, request_tokens: tokens, client, priority, deadline: None, bound: None, payload }
    }
}

/// A job that was chosen, or dropped.
#[derive(Debug)]
pub struct Planned<T> {
    /// Its name.
    pub id: JobId,
    /// The job.
    pub job: WaitingJob<T>,
}

/// The jobs that wait, and the choice among them.
#[derive(Debug)]
pub struct Planner<T> {
    policy: Policy,
    jobs: HashMap<JobId, Entry<T>>,
    turns: Turns,
    /// The jobs that have a deadline, the nearest in front.
    deadlines: BTreeSet<(Instant, JobId)>,
    tokens: usize,
    next: u64,
    /// The tokens of a job, where batches are formed by what jobs begin with.
    texts: Option<fn(&T) -> &[u32]>,
}

#[derive(Debug)]
struct Entry<T> {
    due: Instant,
    arrived: Instant,
    job: WaitingJob<T>,
}

/// Much waits when its tokens would pay for so many passes: from then on it is cheaper to make a pass more than to
/// pad what is computed anyway.
const LARGE: usize = 4;

/// A pass while several clients are served has at most so many times the positions that a pass costs beyond its own. Longer
/// ones would save less than one part in so many, and whoever comes meanwhile waits for all of it.
const BRIEF: usize = 32;
/// For how many full batches after another client's turn one is expected again.
const EXPECTED: usize = 16;

impl<T> Planner<T> {
    /// An empty planner.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            jobs: HashMap::new(),
            turns: Turns::default(),
            deadlines: BTreeSet::new(),
            tokens: 0,
            next: 0,
            texts: None,
        }
    }

    /// Forms batches by what jobs consist of, where the policy wants that; `text` gives a job's tokens.
    #[must_use]
    pub fn with_texts(mut self, text: fn(&T) -> &[u32]) -> Self {
        let by_length = matches!(self.policy.grouping, Grouping::Length | Grouping::EqualLength);
        self.texts = (!by_length).then_some(text);
        self
    }

    /// Forms batches by another policy from now on, one that goes by what jobs consist of as this one does or doesn't.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Changes how many positions a batch of several samples may have.
    pub(crate) fn set_budget(&mut self, budget: usize) {
        self.policy.budget = budget;
    }

    /// How many jobs wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How many tokens wait, padding left out.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Takes in a job that arrived at `now`.
    pub fn push(&mut self, job: WaitingJob<T>, now: Instant) -> JobId {
        let id = JobId(self.next);
        self.next += 1;
        let remaining = job.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let due = now + self.policy.due_after(job.request_tokens, job.priority, shorter(remaining, job.bound));
        self.turns.insert(job.client, due, id, job.tokens);
        if let Some(deadline) = job.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.tokens += job.tokens;
        self.jobs.insert(id, Entry { due, arrived: now, job });
        id
    }

    /// Takes out a job that is no longer wanted; `None` when it was chosen or dropped already.
    pub fn remove(&mut self, id: JobId) -> Option<WaitingJob<T>> {
        let Entry { due, job, .. } = self.jobs.remove(&id)?;
        self.turns.remove(job.client, due, id, job.tokens);
        if let Some(deadline) = job.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.tokens -= job.tokens;
        Some(job)
    }

    /// Takes out every job whose deadline is not after `now`.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Planned<T>> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            expired.extend(self.remove(id).map(|job| Planned { id, job }));
        }
        expired
    }

    /// Takes out every job.
    pub(crate) fn drain(&mut self) -> Vec<Planned<T>> {
        self.turns.clear();
        self.deadlines.clear();
        self.tokens = 0;
        self.jobs.drain().map(|(id, Entry { job, .. })| Planned { id, job }).collect()
    }

    /// When [`Self::expire`] next has something to do.
    #[must_use]
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// How many waiting tokens go before the last job of a request that arrives at `now` with `tokens` tokens in all and is
    /// wanted within `remaining`.
    #[must_use]
    pub fn tokens_before(
        &self,
        client: ClientId,
        tokens: usize,
        priority: Priority,
        remaining: Duration,
        now: Instant,
    ) -> usize {
        let due = now + self.policy.due_after(tokens, priority, Some(remaining));
        let length = |id| self.jobs.get(&id).map_or(0, |entry| entry.job.tokens);
        self.turns.before(client, tokens, due, length)
    }

    /// How many waiting tokens are computed before the last of `tokens` more of a client, at most.
    #[must_use]
    pub fn tokens_ahead(&self, client: ClientId, tokens: usize) -> usize {
        self.turns.ahead(client, tokens)
    }

    /// Whether a client has no more waiting, with what arrives, than its part of so many tokens shared by all who wait.
    #[must_use]
    pub fn is_within_share(&self, client: ClientId, arriving: usize, tokens: usize) -> bool {
        self.turns.is_within_share(client, arriving, tokens)
    }

    /// Takes out the next batch, for one of `free` workers that could start now; `None` when nothing waits.
    ///
    /// It always holds the job that is due first among those of the client whose turn it is, so that none starves, and
    /// with it jobs of similar length: as many
    /// as are cheaper together than apart, but no more than this worker's share of what waits, lest the
    /// other workers stand idle. Where jobs are not padded, they are those that begin alike, or whatever is due next.
    /// Jobs whose deadline has passed at `now` are never chosen.
    pub fn plan(&mut self, now: Instant, free: usize) -> Option<Vec<Planned<T>>> {
        self.plan_here(now, free, |_| false)
    }

    /// The same for a worker on one of several devices; `elsewhere` says which jobs it leaves to another one. Of those it
    /// takes what is due behind a full batch of them.
    pub(super) fn plan_here(
        &mut self,
        now: Instant,
        free: usize,
        elsewhere: impl Fn(&T) -> bool,
    ) -> Option<Vec<Planned<T>>> {
        let alive =
            |id: JobId| self.jobs.get(&id).filter(|entry| entry.job.deadline.is_none_or(|deadline| deadline > now));
        let level = |id: JobId| {
            let entry = alive(id)?;
            Some(self.policy.level(entry.job.priority, now.saturating_duration_since(entry.arrived)))
        };
        let mut left = 0;
        let mut is_left = |job: &WaitingJob<T>| {
            let leaves = elsewhere(&job.payload) && left < self.policy.budget;
            left += if leaves { job.tokens } else { 0 };
            leaves
        };
        let mut window: Vec<(usize, JobId)> = self
            .turns
            .jobs(level)
            .filter_map(|id| alive(id).filter(|entry| !is_left(&entry.job)).map(|entry| (entry.job.tokens, id)))
            .take(self.policy.window.max(1))
            .collect();
        let &(_, first) = window.first()?;
        if let Some(text) = self.texts {
            let texts: Vec<&[u32]> =
                window.iter().filter_map(|(_, id)| self.jobs.get(id).map(|entry| text(&entry.job.payload))).collect();
            let chosen = affinity::join(&texts, &self.policy);
            let chosen: Vec<JobId> = chosen.into_iter().map(|at| window[at].1).collect();
            return Some(self.take(&chosen, first));
        }
        window.sort_unstable();
        let anchor = window.iter().position(|&(_, id)| id == first)?;
        // One worker takes what it likes: its batch may then have more positions than tokens wait.
        let share = if free > 1 { self.tokens.div_ceil(free) } else { usize::MAX };
        let chosen: Vec<JobId> = window[self.grow(&window, anchor, share)].iter().map(|&(_, id)| id).collect();
        Some(self.take(&chosen, first))
    }

    /// Takes out the jobs of a batch, which `first` was chosen for.
    fn take(&mut self, chosen: &[JobId], first: JobId) -> Vec<Planned<T>> {
        if let Some(Entry { job, .. }) = self.jobs.get(&first) {
            self.turns.begin(job.client);
        }
        let mut tokens = 0;
        for id in chosen {
            if let Some(Entry { job, .. }) = self.jobs.get(id) {
                self.turns.serve(job.client, job.tokens);
                tokens += job.tokens;
            }
        }
        self.turns.advance(tokens);
        chosen.iter().filter_map(|&id| self.remove(id).map(|job| Planned { id, job })).collect()
    }

    /// Widens the range around `anchor` in a window sorted by length, each time on the side that pads less, while
    /// that is cheaper than another pass.
    fn grow(&self, window: &[(usize, JobId)], anchor: usize, share: usize) -> Range<usize> {
        let client = self.jobs.get(&window[anchor].1).map(|entry| entry.job.client).unwrap_or_default();
        let several = self.turns.are_several(client, self.policy.budget.saturating_mul(EXPECTED));
        let brief = if several { self.policy.overhead.saturating_mul(BRIEF) } else { usize::MAX };
        let limit = self.policy.budget.min(share).min(brief);
        let overhead = if self.policy.grouping == Grouping::EqualLength { 0 } else { self.policy.overhead };
        let length = |index: usize| window[index].0;
        let most_padding =
            if self.tokens >= self.policy.overhead.saturating_mul(LARGE) { self.policy.padding_percent } else { 100 };
        let (mut start, mut end) = (anchor, anchor + 1);
        let mut padded = 0;
        while end - start < self.policy.max_batch {
            let samples = end - start;
            let longest = length(end - 1);
            let worthwhile = |padding: usize, longest: usize| {
                let positions = (samples + 1).saturating_mul(longest);
                padding <= overhead
                    && positions <= limit
                    && (padded + padding).saturating_mul(100) <= positions.saturating_mul(most_padding)
            };
            let shorter =
                (start > 0).then(|| longest - length(start - 1)).filter(|&padding| worthwhile(padding, longest));
            let longer = (end < window.len())
                .then(|| (samples * (length(end) - longest), length(end)))
                .filter(|&(padding, longest)| worthwhile(padding, longest))
                .map(|(padding, _)| padding);
            match (shorter, longer) {
                (Some(less), other) if other.is_none_or(|more| less <= more) => {
                    padded += less;
                    start -= 1;
                }
                (_, Some(more)) => {
                    padded += more;
                    end += 1;
                }
                _ => break,
            }
        }
        self.whole(window, anchor, start..end)
    }

    /// The part of a range around `anchor` whose number of samples is none that passes are rounded up to at a price that is
    /// higher than another pass: the longest stay behind.
    fn whole(&self, window: &[(usize, JobId)], anchor: usize, range: Range<usize>) -> Range<usize> {
        let Some(shapes) = self.policy.shapes else { return range };
        let Range { mut start, mut end } = range;
        let [samples, length] = shapes.rounded([end - start, window[end - 1].0]);
        if (samples - (end - start)) * length > self.policy.overhead {
            let whole = shapes.whole(end - start);
            while end - start > whole {
                if end - 1 > anchor {
                    end -= 1;
                } else {
                    start += 1;
                }
            }
        }
        start..end
    }
}

/// The shorter of two durations, where there are any.
fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
