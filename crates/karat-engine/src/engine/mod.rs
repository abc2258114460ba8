//! From a [`ScoreRequest`] to a [`ScoreReport`]: the one call that every API dialect makes.
//!
//! ```text
//! request ─ resolve the model and its rules ─ tokenise ─ cache ─ schedule ─ head ─ aggregate ─ transform ─ report
//! ```
//!
//! The cache holds what a head read, before aggregation: changing an aggregation or a transform never costs a forward
//! pass. Everything about one request is admitted or refused together.

mod cache;
mod critique;
mod embed;
mod error;
mod evaluate;
mod report;
mod request;
mod tokenize;

use std::{sync::Arc, time::Instant};

pub use critique::{Critique, CritiqueEvent, CritiqueRequest, Critiques, Ending};
pub use error::{ErrorKind, ScoreError};
pub use report::{Detail, Embeddings, EnsembleReport, SampleReport, ScoreReport, StepRewards, Timings, Usage};
pub use request::ScoreRequest;

use cache::ScoreCache;
use evaluate::{Leaves, Rules};
use karat_rules::domain::ModelName;
use request::Limits;
use tokenize::{Inputs, TokenCache};

use crate::repository::{GraphModel, Model, Repository};

/// Scores samples with the models of one repository.
#[derive(Debug)]
pub struct Engine {
    repository: Repository,
    cache: ScoreCache,
    tokens: TokenCache,
}

impl Engine {
    /// An engine without models, which keeps scores and tokens in at most `cache_bytes`; [`Repository::load`] fills it.
    #[must_use]
    pub fn new(cache_bytes: u64) -> Self {
        let tokens = cache_bytes / 2;
        Self {
            repository: Repository::default(),
            cache: ScoreCache::new(cache_bytes - tokens),
            tokens: TokenCache::new(tokens),
        }
    }

    /// The memory that known scores and tokens take.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.cache.bytes() + self.tokens.bytes()
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
        Rules::resolve(&model, request.overrides.clone(), request.samples.len())?;
        for leaf in model.leaves() {
            let Some(probing) = leaf.head.probing() else { continue };
            for (index, sample) in request.samples.iter().enumerate() {
                probing.probes(sample).map_err(|source| ScoreError::Probe { index, source })?;
            }
        }
        Ok(())
    }

    /// Scores every sample of a request.
    ///
    /// Dropping the future abandons the forward passes that nobody else waits for.
    ///
    /// # Errors
    /// One error for the whole request: see [`ScoreError`].
    pub async fn score(&self, request: ScoreRequest) -> Result<ScoreReport, ScoreError> {
        let ScoreRequest { model, samples, overrides, text, limits } = request;
        let model = self.model(&model)?;
        let rules = Rules::resolve(&model, overrides, samples.len())?;

        let started = Instant::now();
        let leaves = model.leaves();
        let scored = async {
            let inputs = self.tokens.tokenize(&leaves, samples, text).await?;
            let tokenized = started.elapsed();
            Ok::<_, ScoreError>((tokenized, self.run(&leaves, inputs, limits).await?))
        };
        let (tokenized, scored) = match limits.deadline {
            None => scored.await?,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), scored).await.map_err(|_| ScoreError::Expired)??
            }
        };
        let mut report = evaluate::report(&model, &rules, &scored)?;
        report.timings.tokenize = tokenized;
        report.timings.total = started.elapsed();
        Ok(report)
    }

    /// Gets the head's output of every input from the cache, from a pass that runs already, or from a new pass.
    async fn run(
        &self,
        leaves: &[Arc<GraphModel>],
        inputs: Vec<Arc<Inputs>>,
        limits: Limits,
    ) -> Result<Leaves, ScoreError> {
        let mut pending = Vec::with_capacity(leaves.len());
        for (leaf, inputs) in leaves.iter().zip(&inputs) {
            // Everything is queued before anything is awaited: a refusal drops, and so abandons, what was admitted.
            let units = leaf.units.iter().map(|unit| self.cache.begin(leaf, unit, inputs.all(), limits));
            pending.push((Arc::clone(leaf), Arc::clone(inputs), units.collect::<Result<Vec<_>, _>>()?));
        }
        let mut scored = Leaves::default();
        for (leaf, inputs, units) in pending {
            scored.collect(leaf, inputs, units).await?;
        }
        Ok(scored)
    }
}
