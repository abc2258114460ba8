//! What a run asks for beside scores, done at the lowest priority and out of every client's way: a second judge's scores,
//! and rewards of edits that shouldn't matter.
//!
//! Samples wait in a bounded queue. Those that find it full, that a busy server refuses, or whose text is rendered for
//! another model are left out and counted: nothing is ever delayed or made up for them.

use karat_engine::{
    engine::{ScoreReport, ScoreRequest},
    schedule::Priority,
    text::Truncation,
};
use karat_rules::{
    domain::{ModelName, Sample},
    edit,
};
use karat_runs::{
    registry::Runs,
    run::{Beside as What, Matched, RunName},
};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{RunTag, now, scored_places};
use crate::api::{AppState, visit::Visit};

/// How many samples wait.
const QUEUE: usize = 1024;
/// How many are scored at once.
const TOGETHER: usize = 16;

/// A sample for which more is asked than its score.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) index: usize,
    pub(super) sample: Sample,
    pub(super) judge: Option<ModelName>,
    pub(super) probe: bool,
}

/// A sample that waits.
#[derive(Debug)]
struct Waiting {
    run: RunName,
    request: String,
    step: Option<u64>,
    model: ModelName,
    reward: f64,
    /// With whose key: what is asked beside scores costs tokens as well.
    visit: Visit,
    beside: Beside,
}

impl Waiting {
    /// What the number is laid beside; none where the run doesn't remember the sample any more.
    async fn matched(&self, state: &AppState) -> Option<Matched> {
        if let Some(step) = self.step {
            return Some(Matched { model: self.model.clone(), step, reward: self.reward });
        }
        // In which step it was counted is known once it is recorded.
        state.runs.settle().await;
        state.runs.runs.find(&self.run, &self.request, self.beside.index)
    }
}

/// The entrance of the queue.
#[derive(Debug)]
pub(super) struct SideQueue(Sender<Waiting>);

impl SideQueue {
    /// Starts the task that empties the queue, for as long as the server runs.
    pub(super) fn start(state: AppState) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(work(state, waiting));
        Self(queue)
    }

    /// Leaves samples of a visit's request; how many found no place.
    pub(super) fn send(
        &self,
        visit: &Visit,
        tag: &RunTag,
        request: &str,
        report: &ScoreReport,
        samples: Vec<Beside>,
    ) -> u64 {
        let scored = scored_places(report);
        let mut left_out = 0;
        for beside in samples {
            let Ok(place) = scored.binary_search(&beside.index) else { continue };
            let waiting = Waiting {
                run: tag.run.clone(),
                request: request.to_owned(),
                step: tag.step,
                model: report.model.clone(),
                reward: report.results[place].reward.get(),
                visit: visit.later(),
                beside,
            };
            left_out += u64::from(self.0.try_send(waiting).is_err());
        }
        left_out
    }
}

async fn work(state: AppState, mut waiting: Receiver<Waiting>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        for one in together.drain(..) {
            let state = state.on_behalf_of(one.visit.clone());
            if let Some(judge) = &one.beside.judge {
                judge_one(&state, &one, judge).await;
            }
            if one.beside.probe {
                probe_one(&state, &one).await;
            }
        }
    }
}

/// Scores a sample by the judge and lays that beside its reward.
async fn judge_one(state: &AppState, one: &Waiting, judge: &ModelName) {
    let runs: &Runs = &state.runs.runs;
    // Text and token ids are made for the model that scored them, and would be nonsense to another.
    let judged = match &one.beside.sample {
        Sample::Conversation(_) | Sample::Pair(_) | Sample::Picture(_) => {
            quietly(state, judge.clone(), vec![one.beside.sample.clone()]).await
        }
        Sample::Text(_) | Sample::Tokens(_) => None,
    };
    let score = judged.and_then(|rewards| rewards.first().copied());
    match (score, one.matched(state).await) {
        (Some(score), Some(matched)) => runs.add_beside(&one.run, What::Judge, &matched, score, now()),
        _ => runs.add_unjudged(&one.run, 1),
    }
}

/// Scores a sample's edits by its own model, and lays the largest change of the reward beside it.
async fn probe_one(state: &AppState, one: &Waiting) {
    let runs: &Runs = &state.runs.runs;
    let edited = edit::of(&one.beside.sample).unwrap_or_default();
    // A response that no edit changes has no sensitivity: it isn't 0.
    if edited.is_empty() {
        return;
    }
    let samples =
        std::iter::once(one.beside.sample.clone()).chain(edited.into_iter().map(|(_, edited)| edited)).collect();
    let Some(rewards) = quietly(state, one.model.clone(), samples).await else { return };
    if let (Some((own, others)), Some(matched)) = (rewards.split_first(), one.matched(state).await) {
        let largest = others.iter().map(|other| (other - own).abs()).fold(0.0, f64::max);
        runs.add_beside(&one.run, What::Sensitivity, &matched, largest, now());
    }
}

/// Rewards by a model's own rules before transforms, as late as may be; none where it can't or won't score them.
async fn quietly(state: &AppState, model: ModelName, samples: Vec<Sample>) -> Option<Vec<f64>> {
    let request = ScoreRequest::new(model, samples).ok()?;
    let request = request
        .with_transforms(Some(Vec::new()))
        .with_truncation(Some(Truncation::ResponseEnd))
        .with_priority(Priority::Low);
    match state.score_as_allowed(request).await {
        Ok(report) => Some(report.results.iter().map(|sample| sample.raw.get()).collect()),
        Err(error) => {
            tracing::debug!(?error, "a sample was not scored again");
            None
        }
    }
}
