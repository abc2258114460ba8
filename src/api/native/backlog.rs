//! What is scored after its request was answered: an environment that can't wait for a reward asks for what is known, and
//! the rest is known when it asks again (Zheng et al. 2024, "Online Intrinsic Rewards for Decision Making Agents from Large
//! Language Model Feedback", whose annotator takes the newest message first).
//!
//! The newest sample goes first, since what an agent sees now matters more than what it saw; where the backlog is full, the
//! oldest goes out, and is queued again when somebody asks for it again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use karat_engine::{
    engine::{Facts, ScoreRequest},
    schedule::Priority,
};
use tokio::sync::Notify;

use crate::api::{AppState, visit::Visit};

/// How many samples wait at most.
const MOST: usize = 10_000;
/// How many are scored at once: they form batches with whatever else waits.
const TOGETHER: usize = 32;

/// Samples that wait to be scored, the newest last.
#[derive(Debug, Default)]
pub(in crate::api) struct Backlog {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Waits>,
    hashes: HashSet<u64>,
}

/// A request of one sample, and with whose key it came.
#[derive(Debug)]
struct Waits {
    hash: u64,
    request: ScoreRequest,
    visit: Visit,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The worst that a panic leaves behind is a sample that can't be queued twice.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a request of one sample to be scored; one that waits already becomes the newest.
    pub(super) fn add(&self, visit: &Visit, request: ScoreRequest) {
        let Some(facts) = request.samples().first().map(Facts::of) else { return };
        let hash = facts.of_model(request.model());
        let mut waiting = self.lock();
        if !waiting.hashes.insert(hash) {
            waiting.requests.retain(|other| other.hash != hash);
        }
        let request = request.with_priority(Priority::Low);
        waiting.requests.push_back(Waits { hash, request, visit: visit.later() });
        if waiting.requests.len() > MOST
            && let Some(oldest) = waiting.requests.pop_front()
        {
            waiting.hashes.remove(&oldest.hash);
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// How many samples wait.
    pub(in crate::api) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    /// The newest samples.
    fn take(&self) -> Vec<Waits> {
        let mut waiting = self.lock();
        let mut taken = Vec::with_capacity(TOGETHER);
        while taken.len() < TOGETHER
            && let Some(newest) = waiting.requests.pop_back()
        {
            waiting.hashes.remove(&newest.hash);
            taken.push(newest);
        }
        taken
    }
}

/// Scores what waits, for as long as the server runs.
pub(in crate::api) async fn work(state: AppState) {
    loop {
        let taken = state.runs.backlog.take();
        if taken.is_empty() {
            state.runs.backlog.more.notified().await;
            continue;
        }
        let scored = taken.into_iter().map(|Waits { request, visit, .. }| {
            let state = state.on_behalf_of(visit);
            async move { state.score_as_allowed(request).await }
        });
        for scored in join_all(scored).await {
            if let Err(error) = scored {
                // Who asks again has it queued again, or hears of the error when it waits.
                tracing::debug!(?error, "a sample was not scored later");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use karat_rules::domain::Sample;

    use super::*;

    fn request(text: usize) -> ScoreRequest {
        ScoreRequest::new("m".parse().unwrap(), vec![Sample::from_text(text.to_string()).unwrap()]).unwrap()
    }

    #[test]
    fn the_newest_goes_first_each_waits_once_and_the_oldest_goes_out() {
        let backlog = Backlog::default();
        for text in (0..MOST + 5).chain([7, 9]) {
            backlog.add(&Visit::default(), request(text));
        }
        assert_eq!(backlog.lock().requests.len(), MOST);
        let texts: Vec<Sample> = backlog.take().iter().map(|waits| waits.request.samples()[0].clone()).collect();
        assert_eq!(texts.len(), TOGETHER);
        let expected = [9, 7, MOST + 4].map(|text| Sample::from_text(text.to_string()).unwrap());
        assert_eq!(texts[..3], expected);
        assert!(
            !backlog
                .lock()
                .requests
                .iter()
                .any(|waits| waits.request.samples()[0] == Sample::from_text("1".to_owned()).unwrap())
        );
    }
}
