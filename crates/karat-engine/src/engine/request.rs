//! What a client asks for, checked once.

use std::time::Instant;

use karat_rules::{
    domain::{ModelName, Sample, catalogue::Choice},
    transform::{CATALOGUE, Context, ContextError},
};

use super::{Draft, OnRefused, Refusal, ScoreError};
use crate::{
    schedule::{Admission, ClientId, Priority},
    text::{TextOptions, Truncation},
};

/// Samples to score with one model.
///
/// Invariant: at least one sample, of those that can be scored and those that are refused together.
#[derive(Debug)]
pub struct ScoreRequest {
    pub(super) model: ModelName,
    pub(super) samples: Vec<Sample>,
    /// Those that are no samples, by their places among all.
    pub(super) refused: Vec<Refusal>,
    pub(super) on_refused: OnRefused,
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
    /// How much edits change each sample's reward, where the aggregation weighs by it; else empty.
    pub(super) sensitivities: Vec<f64>,
    pub(super) grouped: bool,
}

impl Overrides {
    /// The same for some of the samples alone.
    pub(super) fn of(self, places: &[usize]) -> Self {
        let sensitivities = places.iter().filter_map(|place| self.sensitivities.get(*place).copied()).collect();
        Self { context: self.context.of(places), sensitivities, ..self }
    }
}

/// Whose a request is, how urgent it is, and whether it may be refused while too much waits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Urgency {
    pub(super) client: ClientId,
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
            refused: Vec::new(),
            on_refused: OnRefused::Fail,
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

    /// The place of each sample among all that the request was made of.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        let all = self.samples.len() + self.refused.len();
        (0..all).filter(|place| self.refused.iter().all(|refusal| refusal.index != *place)).collect()
    }

    /// Whether its transforms need to know how often each response was seen. Those of a manifest never do: a model whose rules
    /// need what requests alone bring is refused.
    #[must_use]
    pub fn needs_counts(&self) -> bool {
        let chosen = self.overrides.transforms.iter().flatten();
        chosen.filter_map(|choice| CATALOGUE.build(choice).ok()).any(|transform| transform.needs().counts)
    }

    /// Says how often each of [`Self::samples`] was seen, where the request says nothing of it.
    ///
    /// # Errors
    /// When a count is 0.
    pub fn with_counts_if_none(mut self, counts: &[u64]) -> Result<Self, ContextError> {
        if self.overrides.context.counts().is_empty() {
            // What was refused has a place in the list as well, whose number nobody looks at.
            let mut all = vec![1; self.samples.len() + self.refused.len()];
            for (place, count) in self.places().into_iter().zip(counts) {
                all[place] = *count;
            }
            self.overrides.context = self.overrides.context.with_counts(&all)?;
        }
        Ok(self)
    }

    /// The same for one sample, with no rule but the model's own and nothing that holds it up: what makes its score known.
    #[must_use]
    pub fn alone(&self, sample: Sample) -> Self {
        Self {
            model: self.model.clone(),
            samples: vec![sample],
            refused: Vec::new(),
            on_refused: OnRefused::default(),
            overrides: Overrides { transforms: Some(Vec::new()), ..Overrides::default() },
            text: self.text,
            urgency: Urgency { admission: Admission::Always, ..Urgency::default() },
        }
    }

    /// A request some samples of which may be refused without harm to the others.
    ///
    /// # Errors
    /// When there are no samples, or one can't be scored and that is to fail the request.
    pub fn of(model: ModelName, drafts: Vec<Draft>, on_refused: OnRefused) -> Result<Self, ScoreError> {
        let (mut samples, mut refused) = (Vec::with_capacity(drafts.len()), Vec::new());
        for (index, draft) in drafts.into_iter().enumerate() {
            match draft {
                Ok(sample) => samples.push(sample),
                Err(reason) if on_refused.spares_others() => refused.push(on_refused.refusal(index, reason)),
                Err(reason) => return Err(ScoreError::NoSample { index, reason }),
            }
        }
        if samples.is_empty() && refused.is_empty() {
            return Err(ScoreError::NoSamples);
        }
        let (overrides, text, urgency) = (Overrides::default(), TextOptions::default(), Urgency::default());
        Ok(Self { model, samples, refused, on_refused, overrides, text, urgency })
    }

    /// The model that is asked for.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.model
    }

    /// Goes before others no more than `priority` allows.
    #[must_use]
    pub fn at_most(mut self, priority: Priority) -> Self {
        self.urgency.priority = self.urgency.priority.min(priority);
        self
    }

    /// The request is that client's. Clients are served in turn, however much each of them sends.
    #[must_use]
    pub fn of_client(mut self, client: ClientId) -> Self {
        self.urgency.client = client;
        self
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

    /// The same samples, as urgent, for a model that embeds them; what isn't a sample is left out.
    #[must_use]
    pub fn to_embed(&self, model: ModelName) -> Self {
        let overrides = Overrides { transforms: Some(Vec::new()), ..Overrides::default() };
        let (samples, on_refused) = (self.samples.clone(), OnRefused::Fail);
        Self { model, samples, refused: Vec::new(), on_refused, overrides, text: self.text, urgency: self.urgency }
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
