//! Scores a share of a model's requests with another version as well, to see how the two differ before one takes over.
//!
//! Nobody waits for it: it goes on at the lowest priority, one request after another, and what finds too many waiting is
//! left out and counted.

use std::sync::{Arc, Mutex, PoisonError};

use karat_rules::domain::{Reward, Sample};
use tokio::sync::mpsc;

use super::{Engine, ScoreReport, ScoreRequest, request::Overrides};
use crate::{
    repository::Outcome,
    schedule::{Admission, Priority},
    text::TextOptions,
};

/// How many requests may wait.
const WAITING: usize = 64;

/// What waits for a shadow.
pub(super) struct Shadows {
    sender: mpsc::Sender<Shadow>,
    waiting: Mutex<Option<mpsc::Receiver<Shadow>>>,
}

/// A request that is scored once more.
pub(super) struct Shadow {
    request: ScoreRequest,
    given: Vec<f64>,
    outcome: Arc<Outcome>,
}

impl Default for Shadows {
    fn default() -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        Self { sender, waiting: Mutex::new(Some(waiting)) }
    }
}

impl std::fmt::Debug for Shadows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadows").finish_non_exhaustive()
    }
}

/// A request whose samples are kept until it was answered, for the shadow to score them too.
pub(super) struct Shadowed {
    request: ScoreRequest,
    outcome: Arc<Outcome>,
}

impl Shadowed {
    /// Hands the request to the shadow with the rewards that were given.
    pub(super) fn answered(self, shadows: &Shadows, report: &ScoreReport) {
        if !report.refused.is_empty() {
            // What the shadow gives would stand at other places.
            return self.outcome.drop_one();
        }
        let given = report.results.iter().map(|result| result.reward.get()).collect();
        let shadow = Shadow { request: self.request, given, outcome: self.outcome };
        if let Err(full) = shadows.sender.try_send(shadow) {
            full.into_inner().outcome.drop_one();
        }
    }
}

impl Engine {
    /// The request once more, where a shadow is to score it as well.
    pub(super) fn shadowed(
        &self,
        model: &karat_rules::domain::ModelName,
        samples: &[Sample],
        overrides: &Overrides,
        text: TextOptions,
    ) -> Option<Shadowed> {
        let (shadow, outcome) = self.repository.shadowing(model, samples)?;
        let mut request = ScoreRequest::new(shadow, samples.to_vec()).ok()?;
        request.overrides = overrides.clone();
        request = request.with_text(text).with_priority(Priority::Low).with_admission(Admission::Bounded);
        Some(Shadowed { request, outcome })
    }

    /// Scores what waits for shadows, as long as the engine lives. Only the first caller does.
    pub async fn follow_shadows(&self) {
        let waiting = self.shadows.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        while let Some(Shadow { request, given, outcome }) = waiting.recv().await {
            match self.answer(request).await {
                Ok(report) => {
                    let rewards: Vec<f64> = report.results.iter().map(|result| Reward::get(result.reward)).collect();
                    outcome.compare(&given, &rewards);
                }
                Err(error) => {
                    tracing::debug!(%error, "a shadow failed");
                    outcome.fail_one();
                }
            }
        }
    }
}
