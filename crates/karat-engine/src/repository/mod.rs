//! The models of one folder, from loading to the end of their threads.
//!
//! A model's life is told by its [`ModelStatus`] and ends when nobody holds it any more: who takes a [`Model`] for a
//! request keeps it, whatever stands under its name meanwhile. The threads of all models, of those too that are still
//! being loaded, end together: by [`Repository::drain`] or [`Repository::stop`].

mod error;
mod expected;
mod load;
mod model;
mod source;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Instant,
};

pub use error::{LoadError, NoModel};
pub use expected::References;
pub(crate) use expected::{Answer, Score};
pub use load::LoadOptions;
pub use model::{CompositeMember, Critic, GraphForm, GraphId, GraphModel, GraphUnit, Model, ModelBody, WrittenRules};
pub use source::{ModelSource, ModelSourceError};

use karat_rules::domain::ModelName;
use karat_runtime::ort::Library;

pub use crate::manifest::EXPECTED_FILE;
use crate::{telemetry::EngineMetrics, workers::Roster};

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

/// The models by name, and all of their threads.
#[derive(Debug, Default)]
pub struct Repository {
    models: RwLock<BTreeMap<ModelName, ModelStatus>>,
    roster: Roster,
}

impl Repository {
    /// Loads every model of a folder; `score` is how a model that isn't ready yet is asked. See `Engine::load`.
    ///
    /// # Errors
    /// Only when the folder itself can't be read or is empty; a model's own error becomes its status.
    pub(crate) fn load(
        &self,
        library: &Library,
        metrics: &EngineMetrics,
        options: &LoadOptions,
        score: Score,
    ) -> Result<(), LoadError> {
        load::load(self, library, metrics, options, score)
    }

    /// Every model by name, with its status.
    #[must_use]
    pub fn models(&self) -> BTreeMap<ModelName, ModelStatus> {
        self.read().clone()
    }

    /// The model of that name, if it takes requests.
    ///
    /// # Errors
    /// When there is no such model, or it is still loading, or it failed to load.
    pub fn model(&self, name: &ModelName) -> Result<Arc<Model>, NoModel> {
        let models = self.read();
        match models.get(name) {
            Some(ModelStatus::Ready(model)) => Ok(Arc::clone(model)),
            Some(ModelStatus::Loading) => Err(NoModel::Loading { model: name.clone() }),
            Some(ModelStatus::Building(_)) => Err(NoModel::Building { model: name.clone() }),
            Some(ModelStatus::Failed(_)) => Err(NoModel::Failed { model: name.clone() }),
            None => {
                let known: Vec<&str> = models.keys().map(ModelName::as_str).collect();
                Err(NoModel::Unknown { name: name.to_string(), known: known.join(", ") })
            }
        }
    }

    /// The name of the only model, if there is only one.
    #[must_use]
    pub fn only_model(&self) -> Option<ModelName> {
        let models = self.read();
        if models.len() == 1 { models.keys().next().cloned() } else { None }
    }

    /// Whether every model has come to an end of loading, or builds engines, and at least one takes requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let models = self.read();
        let loading = models.values().any(|status| matches!(status, ModelStatus::Loading));
        !loading && models.values().any(|status| matches!(status, ModelStatus::Ready(_)))
    }

    /// Puts a model under a name, or changes how far it has come. Requests that hold another one of that name end on it.
    pub fn set_status(&self, name: ModelName, status: ModelStatus) {
        if let ModelStatus::Ready(model) = &status {
            model.enlist(&self.roster);
        }
        let replaced = self.models.write().unwrap_or_else(PoisonError::into_inner).insert(name, status);
        // Dropped without the lock: where no request holds it, its threads are stopped here.
        drop(replaced);
    }

    /// Takes no more requests, finishes what was admitted, and ends every thread of every model; loading breaks off.
    /// Blocks until then.
    pub fn drain(&self) {
        self.roster.drain();
    }

    /// Gives up what waits and what runs: every request fails at once, and loading breaks off. Doesn't block.
    pub fn stop(&self) {
        self.roster.stop();
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ModelName, ModelStatus>> {
        // A reader or writer that panicked left a whole map behind: entries are replaced, never edited.
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }
}
