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
mod load;
mod model;
mod report;
mod request;
mod tokenize;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

pub use critique::{Critic, Critique, CritiqueEvent, CritiqueRequest, Critiques, Ending};
pub use error::{ErrorKind, ScoreError};
pub use load::{LoadError, LoadOptions, load_repository};
pub use model::{CompositeMember, GraphModel, GraphUnit, Model, ModelBody, WrittenRules};
pub use report::{Detail, Embeddings, EnsembleReport, SampleReport, ScoreReport, StepRewards, Timings, Usage};
pub use request::ScoreRequest;

use cache::ScoreCache;
use evaluate::{Leaves, Rules};
use karat_rules::domain::ModelName;
use request::Limits;
use tokenize::{Inputs, TokenCache};

use crate::workers::Roster;

/// How far a model of the repository has come.
#[derive(Debug, Clone)]
pub enum ModelStatus {
    /// It is being loaded and warmed up.
    Loading,
    /// TensorRT builds its engines since then, which takes minutes and happens once. It doesn't keep the server from
    /// being ready.
    Building(Instant),
    /// It takes requests.
    Ready(Arc<Model>),
    /// It could not be loaded, for this reason.
    Failed(String),
}

/// Scores samples with the models of one repository.
#[derive(Debug)]
pub struct Engine {
    models: RwLock<BTreeMap<ModelName, ModelStatus>>,
    roster: Roster,
    cache: ScoreCache,
    tokens: TokenCache,
}

impl Engine {
    /// An engine without models, which keeps scores and tokens in at most `cache_bytes`; [`load_repository`] fills it.
    #[must_use]
    pub fn new(cache_bytes: u64) -> Self {
        let tokens = cache_bytes / 2;
        Self {
            models: RwLock::default(),
            roster: Roster::default(),
            cache: ScoreCache::new(cache_bytes - tokens),
            tokens: TokenCache::new(tokens),
        }
    }

    /// The memory that known scores and tokens take.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.cache.bytes() + self.tokens.bytes()
    }

    /// Every model of the repository by name, with its status.
    #[must_use]
    pub fn models(&self) -> BTreeMap<ModelName, ModelStatus> {
        // A reader or writer that panicked left a whole map behind: entries are replaced, never edited.
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether every model has come to an end of loading, or builds engines, and at least one takes requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let loading = models.values().any(|status| matches!(status, ModelStatus::Loading));
        !loading && models.values().any(|status| matches!(status, ModelStatus::Ready(_)))
    }

    /// Puts a model into the repository, or changes how far it has come.
    pub fn set_status(&self, name: ModelName, status: ModelStatus) {
        if let ModelStatus::Ready(model) = &status {
            model.enlist(&self.roster);
        }
        self.models.write().unwrap_or_else(PoisonError::into_inner).insert(name, status);
    }

    /// Takes no more requests, finishes what was admitted, and ends every thread of every model, also of those that
    /// are still being loaded. Blocks until then.
    pub fn drain(&self) {
        self.roster.drain();
    }

    /// Gives up what waits and what runs: every request fails at once, and loading breaks off. Doesn't block.
    pub fn stop(&self) {
        self.roster.stop();
    }

    /// The model of that name, if it takes requests.
    ///
    /// # Errors
    /// When there is no such model, or it is still loading, or it failed to load.
    pub fn model(&self, name: &ModelName) -> Result<Arc<Model>, ScoreError> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        match models.get(name) {
            Some(ModelStatus::Ready(model)) => Ok(Arc::clone(model)),
            Some(ModelStatus::Loading) => Err(ScoreError::Loading { model: name.clone() }),
            Some(ModelStatus::Building(_)) => Err(ScoreError::Building { model: name.clone() }),
            Some(ModelStatus::Failed(_)) => Err(ScoreError::NotLoaded { model: name.clone() }),
            None => {
                let known: Vec<&str> = models.keys().map(ModelName::as_str).collect();
                Err(ScoreError::UnknownModel { name: name.to_string(), known: known.join(", ") })
            }
        }
    }

    /// Whether the model of a request scores several objectives apart.
    ///
    /// # Errors
    /// When the model takes no requests.
    pub fn has_objectives(&self, request: &ScoreRequest) -> Result<bool, ScoreError> {
        Ok(self.model(&request.model)?.has_objectives())
    }

    /// The name of the only model of the repository, if there is only one.
    #[must_use]
    pub fn only_model(&self) -> Option<ModelName> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        if models.len() == 1 { models.keys().next().cloned() } else { None }
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
