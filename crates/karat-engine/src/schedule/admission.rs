//! Who may wait: a request is admitted whole or refused whole, judged by the tokens that wait and the measured rate.
//!
//! A refusal that comes at once is worth more than an answer that comes too late: the client can go elsewhere, and
//! the time that its samples would have taken goes to those that can still be served.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Admission, ClientId, Job, Planner, Priority, QueueLimits, QueueRefusal, rate::Rate};

/// What the decision depends on.
#[derive(Debug)]
pub(super) struct Load<'a, T> {
    pub(super) planner: &'a Planner<T>,
    pub(super) running_tokens: usize,
    pub(super) rate: &'a Rate,
}

/// By how much the wait is taken to be longer than what waits now explains: shorter jobs that come later still
/// overtake, and a batch that holds a job ends later than the job alone would.
const OVERTAKING: f64 = 1.25;

impl<T> Load<'_, T> {
    /// Whether all of `jobs` may wait.
    ///
    /// # Errors
    /// Why none of them may.
    pub(super) fn admit(&self, limits: &QueueLimits, jobs: &[Job], now: Instant) -> Result<(), QueueRefusal> {
        // A request's jobs are one client's.
        let client = jobs.first().map(|job| job.client).unwrap_or_default();
        let waiting_tokens = self.planner.tokens();
        let arriving: usize = jobs.iter().map(|job| job.input.len()).sum();
        if jobs.iter().any(|job| job.admission == Admission::Bounded) {
            // What is larger than the whole bound would never be admitted otherwise. What others let wait is not held
            // against a client that has less of it than they.
            if waiting_tokens > 0
                && waiting_tokens + arriving > limits.queued_tokens
                && !self.planner.is_within_share(client, arriving, limits.queued_tokens)
            {
                let excess = (waiting_tokens + arriving - limits.queued_tokens).min(waiting_tokens);
                let retry_after = self.time_behind(excess).unwrap_or(Duration::from_secs(1));
                return Err(QueueRefusal::Full { waiting_tokens, retry_after });
            }
        }
        if let Some(bound) = jobs.iter().filter_map(|job| job.admission.bound(limits)).min() {
            let wait = self.time_behind(self.planner.tokens_ahead(client, arriving));
            if let Some(wait) = wait.filter(|wait| *wait > bound) {
                return Err(QueueRefusal::TooSlow { wait, retry_after: wait - bound });
            }
        }
        self.in_time(client, jobs, now)
    }

    /// Refuses jobs that would be computed for nobody.
    fn in_time(&self, client: ClientId, jobs: &[Job], now: Instant) -> Result<(), QueueRefusal> {
        // Of jobs alike in all but length the last is due last, behind all the others: counting for it decides for all.
        let mut alike: BTreeMap<(Instant, Priority), usize> = BTreeMap::new();
        for job in jobs {
            let Some(deadline) = job.deadline else { continue };
            *alike.entry((deadline, job.priority)).or_default() += job.input.len();
        }
        for ((deadline, priority), tokens) in alike {
            let remaining = deadline.saturating_duration_since(now);
            let late = |wait: &Duration| wait.mul_f64(OVERTAKING) > remaining;
            // Most deadlines are far off; only near ones are worth counting what exactly goes before the job.
            if self.time_behind(self.planner.tokens() + tokens).is_none_or(|wait| !late(&wait)) {
                continue;
            }
            let before = self.planner.tokens_before(client, tokens, priority, remaining, now);
            // On an idle model the rate may be a wrong guess, and waiting would make nothing better.
            if before + self.running_tokens == 0 {
                continue;
            }
            if let Some(wait) = self.time_behind(before + tokens).filter(late) {
                return Err(QueueRefusal::TooSlow { wait, retry_after: wait.mul_f64(OVERTAKING) - remaining });
            }
        }
        Ok(())
    }

    /// How long `tokens` take after what runs now.
    fn time_behind(&self, tokens: usize) -> Option<Duration> {
        self.rate.time_for(tokens + self.running_tokens)
    }
}
