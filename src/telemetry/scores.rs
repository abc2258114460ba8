//! What models say, counted: a reward model that drifts shows in the distribution of its rewards before it shows in a policy.

use karat_engine::{
    engine::{SampleReport, ScoreReport},
    repository::ModelStatus,
};
use karat_rules::domain::ModelName;
use karat_runtime::metrics;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

/// Rewards before any transform: probabilities are told apart as well as logits are.
const REWARDS: [f64; 17] =
    [-20.0, -10.0, -5.0, -2.0, -1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 2.0, 5.0, 10.0, 20.0];
/// In the unit of the rewards.
const DEVIATIONS: [f64; 10] = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// How far a model may have come.
const STATES: [&str; 5] = ["loading", "building", "ready", "failed", "unloaded"];

metrics! {
    /// What models say of samples, and how far each has come.
    pub(super) struct ScoreMetrics {
        rewards: HistogramVec by ["model"] in REWARDS =
            "karat_sample_reward", "Rewards of samples before any transform";
        deviations: HistogramVec by ["model"] in DEVIATIONS =
            "karat_sample_disagreement", "Standard deviation of the members' scores of a sample";
        truncated: IntCounterVec by ["model"] =
            "karat_samples_truncated_total", "Samples of which something was cut because they were too long";
        states: IntGaugeVec by ["model", "state"] =
            "karat_model_state", "1 for how far a model has come, 0 for what else it could be";
        weight_bytes: IntGaugeVec by ["model"] =
            "karat_model_weight_bytes", "A model's share of the memory that weights take";
    }
}

impl ScoreMetrics {
    /// Counts the samples of a request.
    pub(super) fn scored(&self, report: &ScoreReport) {
        // A model's versions follow one another without an end.
        let labels = [report.model.base()];
        // Observed apart and added at once: each sample by itself would take what all cores count in from each other.
        let rewards = self.rewards.with_label_values(&labels).local();
        let deviations = self.deviations.with_label_values(&labels).local();
        let mut truncated = 0;
        for SampleReport { raw, ensemble, cut, .. } in &report.results {
            rewards.observe(raw.get());
            deviations.observe(ensemble.variance.get().sqrt());
            truncated += u64::from(cut.is_cut());
        }
        rewards.flush();
        deviations.flush();
        self.truncated.with_label_values(&labels).inc_by(truncated);
    }

    /// States how far each model has come.
    pub(super) fn models<'a>(&self, models: impl Iterator<Item = (&'a ModelName, &'a ModelStatus)>) {
        self.states.reset();
        self.weight_bytes.reset();
        for (name, status) in models {
            for state in STATES {
                let is = state == state_word(status);
                self.states.with_label_values(&[name.as_str(), state]).set(i64::from(is));
            }
            if let ModelStatus::Ready(model) = status
                && let Some(bytes) = model.weight_bytes()
            {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                self.weight_bytes.with_label_values(&[name.as_str()]).set(bytes);
            }
        }
    }
}

/// How far a model has come, in one word.
pub(crate) fn state_word(status: &ModelStatus) -> &'static str {
    match status {
        ModelStatus::Loading => "loading",
        ModelStatus::Building(_) => "building",
        ModelStatus::Ready(_) => "ready",
        ModelStatus::Failed(_) => "failed",
        ModelStatus::Unloaded => "unloaded",
    }
}
