//! What a client asks for, checked once.

use std::time::Instant;

use karat_rules::{
    domain::{ModelName, Sample, catalogue::Choice},
    transform::{Context, ContextError},
};

use super::ScoreError;
use crate::{
    schedule::{Admission, Priority},
    text::{TextOptions, Truncation},
};

/// Samples to score with one model.
///
/// Invariant: at least one sample.
#[derive(Debug)]
pub struct ScoreRequest {
    pub(super) model: ModelName,
    pub(super) samples: Vec<Sample>,
    pub(super) overrides: Overrides,
    pub(super) text: TextOptions,
    pub(super) urgency: Urgency,
}

/// What a request wants done otherwise than the model's manifest says, and what its rules may use.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    pub(super) aggregate: Option<Choice>,
    pub(super) transforms: Option<Vec<Choice>>,
    pub(super) context: Context,
    pub(super) grouped: bool,
}

/// How urgent a request is, and whether it may be refused while too much waits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Urgency {
    pub(super) priority: Priority,
    pub(super) deadline: Option<Instant>,
    pub(super) admission: Admission,
}

impl ScoreRequest {
    /// A request that follows the model's manifest in everything.
    ///
    /// # Errors
    /// When there are no samples.
    pub fn new(model: ModelName, samples: Vec<Sample>) -> Result<Self, ScoreError> {
        if samples.is_empty() {
            return Err(ScoreError::NoSamples);
        }
        Ok(Self {
            model,
            samples,
            overrides: Overrides::default(),
            text: TextOptions::default(),
            urgency: Urgency::default(),
        })
    }

    /// What is to be scored.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The model that scores.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.model
    }

    /// Says how often each response was seen, where the request says nothing of it.
    ///
    /// # Errors
    /// When a count is 0.
    pub fn with_counts_if_none(mut self, counts: &[u64]) -> Result<Self, ContextError> {
        if self.overrides.context.counts().is_empty() {
            self.overrides.context = self.overrides.context.with_counts(counts)?;
        }
        Ok(self)
    }

    /// The same for one sample, with no rule but the model's own and nothing that holds it up: what makes its score known.
    #[must_use]
    pub fn alone(&self, sample: Sample) -> Self {
        Self {
            model: self.model.clone(),
            samples: vec![sample],
            overrides: Overrides { transforms: Some(Vec::new()), ..Overrides::default() },
            text: self.text,
            urgency: Urgency { admission: Admission::Always, ..Urgency::default() },
        }
    }

    /// The same request for other samples.
    ///
    /// # Errors
    /// When there are no samples.
    pub fn with_samples(self, samples: Vec<Sample>) -> Result<Self, ScoreError> {
        if samples.is_empty() {
            return Err(ScoreError::NoSamples);
        }
        Ok(Self { samples, ..self })
    }

    /// The same samples, as urgent, for a model that embeds them.
    #[must_use]
    pub fn to_embed(&self, model: ModelName) -> Self {
        let overrides = Overrides { transforms: Some(Vec::new()), ..Overrides::default() };
        Self { model, samples: self.samples.clone(), overrides, text: self.text, urgency: self.urgency }
    }

    /// Aggregates the members by another rule than the manifest's.
    #[must_use]
    pub fn with_aggregate(mut self, aggregate: Option<Choice>) -> Self {
        self.overrides.aggregate = aggregate;
        self
    }

    /// Applies other transforms than the manifest's; an empty list means none.
    #[must_use]
    pub fn with_transforms(mut self, transforms: Option<Vec<Choice>>) -> Self {
        self.overrides.transforms = transforms;
        self
    }

    /// Treats the samples as candidates for one prompt: rules may compare them.
    #[must_use]
    pub fn as_group(mut self, grouped: bool) -> Self {
        self.overrides.grouped = grouped;
        self
    }

    /// Brings what some rules need beside rewards: references, counts, margins, successes.
    #[must_use]
    pub fn with_context(mut self, context: Context) -> Self {
        self.overrides.context = context;
        self
    }

    /// Truncates by another policy than the manifest's.
    #[must_use]
    pub fn with_truncation(mut self, truncation: Option<Truncation>) -> Self {
        self.text.truncation = truncation;
        self
    }

    /// Handles text otherwise than the manifest says.
    #[must_use]
    pub fn with_text(mut self, text: TextOptions) -> Self {
        self.text = text;
        self
    }

    /// Lets the request be refused while too much waits, as usual, or wait however long it takes.
    #[must_use]
    pub fn with_admission(mut self, admission: Admission) -> Self {
        self.urgency.admission = admission;
        self
    }

    /// Lets the request go before or after others.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.urgency.priority = priority;
        self
    }

    /// Gives up at that time.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.urgency.deadline = deadline;
        self
    }
}
