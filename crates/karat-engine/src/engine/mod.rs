//! From a [`ScoreRequest`] to a [`ScoreReport`]: the one call that every API dialect makes.
//!
//! ```text
//! request ─ resolve the model and its rules ─ tokenise ─ cache ─ schedule ─ runtime ─ head ─ aggregate ─ transform ─ report
//! ```
//!
//! The cache holds what a head read, before aggregation: changing an aggregation or a transform never costs a forward
//! pass. Everything about one request is admitted or refused together.

mod compute;
mod critique;
mod embed;
mod error;
mod expected;
mod facts;
mod hashed;
mod prepare;
mod refusal;
mod report;
mod request;
mod reward;
mod sensitivity;
mod shadow;
mod single_flight;
mod tokenize;

use std::{sync::Arc, time::Instant};

pub use critique::{Critique, CritiqueEvent, CritiqueRequest, Critiques, Ending};
pub use error::{ErrorKind, ScoreError};
pub use facts::Facts;
pub use refusal::{Draft, OnRefused, Refusal};
pub use report::{Detail, Embeddings, EnsembleReport, SampleReport, ScoreReport, StepRewards, Timings, Usage};
pub use request::ScoreRequest;

use compute::{Computation, Outputs};
use karat_rules::domain::ModelName;
use karat_runtime::ort::Library;
use refusal::Remaining;
use reward::RequestRules;
use shadow::Shadows;
use tokenize::TokenCache;

use crate::{
    repository::{LoadError, LoadOptions, Model, ModelLoader, Repository},
    telemetry::EngineMetrics,
};

/// From so many samples on, which some rules compare each with each, they leave the async threads alone.
const MANY_SAMPLES: usize = 256;

/// Scores samples with the models of one repository.
#[derive(Debug)]
pub struct Engine {
    repository: Repository,
    outputs: Outputs,
    tokens: TokenCache,
    shadows: Shadows,
}

impl Engine {
    /// An engine without models, which keeps scores and tokens in at most `cache_bytes`; [`Self::load`] fills it.
    #[must_use]
    pub fn new(cache_bytes: u64) -> Self {
        let tokens = cache_bytes / 2;
        Self {
            repository: Repository::default(),
            outputs: Outputs::new(cache_bytes - tokens),
            tokens: TokenCache::new(tokens),
            shadows: Shadows::default(),
        }
    }

    /// What loads the models of a repository, and changes them while the server runs.
    #[must_use]
    pub fn loader<'a>(
        &'a self,
        library: &'a Library,
        metrics: &'a EngineMetrics,
        options: &'a LoadOptions,
    ) -> ModelLoader<'a> {
        ModelLoader::new(&self.repository, library, metrics, options, expected::answer)
    }

    /// Loads every model once: see [`ModelLoader::load_all`].
    ///
    /// # Errors
    /// Only when the folder itself can't be read or is empty; a model's own error becomes its status.
    pub fn load(&self, library: &Library, metrics: &EngineMetrics, options: &LoadOptions) -> Result<(), LoadError> {
        self.loader(library, metrics, options).load_all()
    }

    /// The memory that known scores and tokens take.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.outputs.bytes() + self.tokens.bytes()
    }

    /// The models.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The model of that name, if it takes requests.
    ///
    /// # Errors
    /// When there is no such model, or it is still loading, or it failed to load.
    pub fn model(&self, name: &ModelName) -> Result<Arc<Model>, ScoreError> {
        Ok(self.repository.model(name)?)
    }

    /// Whether the model of a request scores several objectives apart.
    ///
    /// # Errors
    /// When the model takes no requests.
    pub fn has_objectives(&self, request: &ScoreRequest) -> Result<bool, ScoreError> {
        Ok(self.model(&request.model)?.has_objectives())
    }

    /// Whether a request's model and rules can score samples of that shape. Only their length is left to be found out.
    ///
    /// # Errors
    /// When the model takes no requests or gives no rewards, or it, an aggregation or a transform doesn't fit.
    pub fn check_scores(&self, request: &ScoreRequest) -> Result<(), ScoreError> {
        let model = self.model(&request.model)?;
        if model.gives_embeddings() {
            return Err(ScoreError::ScoresNothing { model: request.model.clone() });
        }
        RequestRules::resolve(&model, request.overrides.clone(), request.samples.len())?;
        for leaf in model.leaves() {
            let Some(probing) = leaf.head.probing() else { continue };
            for (index, sample) in request.samples.iter().enumerate() {
                probing.probes(sample).map_err(|source| ScoreError::Probe { index, source })?;
            }
        }
        Ok(())
    }

    /// Of each sample whether its score is known already, and costs no forward pass.
    ///
    /// # Errors
    /// When the model takes no requests, or a sample can't be tokenised or is too long.
    pub async fn known(&self, request: &ScoreRequest) -> Result<Vec<bool>, ScoreError> {
        let leaves = self.repository.answering(&request.model, &request.samples)?.leaves();
        let tokenized = self.tokens.tokenize(&leaves, request.samples.clone(), request.text, false).await?;
        Ok(self.outputs.known(&leaves, &tokenized.inputs))
    }

    /// Whether scores are kept at all.
    #[must_use]
    pub fn keeps_scores(&self) -> bool {
        self.outputs.keeps()
    }

    /// Scores every sample of a request.
    ///
    /// Dropping the future abandons the forward passes that nobody else waits for.
    ///
    /// # Errors
    /// One error for the whole request: see [`ScoreError`].
    pub async fn score(&self, request: ScoreRequest) -> Result<ScoreReport, ScoreError> {
        let shadowed = self.shadowed(&request.model, &request.samples, &request.overrides, request.text);
        let report = self.answer(request).await?;
        if let Some(shadowed) = shadowed {
            shadowed.answered(&self.shadows, &report);
        }
        Ok(report)
    }

    async fn answer(&self, request: ScoreRequest) -> Result<ScoreReport, ScoreError> {
        let started = Instant::now();
        let model = self.repository.answering(&request.model, &request.samples)?;
        let (request, spent) = self.with_sensitivities(&model, request).await?;
        let mut report = self.answer_by(model, request).await?;
        report.usage = spent.unwrap_or(report.usage);
        report.timings.total = started.elapsed();
        Ok(report)
    }

    async fn answer_by(&self, model: Arc<Model>, request: ScoreRequest) -> Result<ScoreReport, ScoreError> {
        let ScoreRequest { samples, refused, on_refused, overrides, text, urgency, .. } = request;
        let count = samples.len() + refused.len();
        let mut rules = RequestRules::resolve(&model, overrides.clone(), count)?;

        let started = Instant::now();
        let leaves = model.leaves();
        let spares_others = on_refused.spares_others();
        let mut remaining = Remaining::new(samples.len(), refused, on_refused);
        let scored = async {
            let tokenized = self.tokens.tokenize(&leaves, samples, text, spares_others).await?;
            remaining.take_out(&tokenized.refused);
            let took = started.elapsed();
            let Computation { leaves, refused } =
                self.outputs.compute(&leaves, tokenized.inputs, urgency, spares_others).await?;
            remaining.take_out(&refused);
            Ok::<_, ScoreError>((took, leaves))
        };
        let (tokenized, scored) = match urgency.deadline {
            None => scored.await?,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), scored).await.map_err(|_| ScoreError::Expired)??
            }
        };
        if (1..count).contains(&remaining.places().len()) {
            // Those that are left may be too few to be compared, and each needs its own of what stands beside samples.
            rules = RequestRules::resolve(&model, overrides.of(remaining.places()), remaining.places().len())?;
        }
        let report = if remaining.places().len() < MANY_SAMPLES {
            reward::report(&model, &rules, &scored)
        } else {
            let work = tokio::task::spawn_blocking(move || reward::report(&model, &rules, &scored));
            work.await.map_err(|_| ScoreError::Panicked)?
        };
        let mut report = report.map_err(|error| error.among(remaining.places()))?;
        report.refused = remaining.into_refused();
        report.timings.tokenize = tokenized;
        Ok(report)
    }
}
