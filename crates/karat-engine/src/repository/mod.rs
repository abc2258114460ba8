//! The models of one folder, from loading to the end of their threads.
//!
//! A model's life is told by its [`ModelStatus`] and ends when nobody holds it any more: who takes a [`Model`] for a
//! request keeps it, whatever stands under its name meanwhile. That is how one version replaces another without losing a
//! request. The threads of all models, of those too that are still being loaded, end together: by [`Repository::drain`]
//! or [`Repository::stop`].

mod error;
mod expected;
mod load;
mod machine;
mod model;
mod orders;
mod source;
mod stamp;
mod traffic;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::Instant,
};

pub use error::{LoadError, NoModel};
pub use expected::References;
pub(crate) use expected::{Answer, Score};
pub use load::{LoadOptions, ModelLoader, Watch};
pub use machine::MachineUse;
pub use model::{CompositeMember, Critic, GraphForm, GraphId, GraphModel, GraphUnit, Model, ModelBody, WrittenRules};
pub use orders::{ChangeError, Loaded};
pub use source::{ModelSource, ModelSourceError};
pub use traffic::{Branch, Differences, Outcome, Share, ShareError, Traffic};

use karat_rules::domain::{ModelName, Sample};
use orders::{Order, Orders};

pub use crate::manifest::EXPECTED_FILE;
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
    /// It was loaded once, and somebody wanted it out of memory.
    Unloaded,
}

/// What lies between a model that takes requests and the files of its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The files are others now than those that were loaded. What takes requests depends on none of them.
    Noticed,
    /// What lies there now is being loaded and tried, beside what takes requests.
    Loading,
    /// What lies there now couldn't be loaded, for this reason. What took requests does so still.
    Failed(String),
}

/// A model as the repository lists it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// How far it has come.
    pub status: ModelStatus,
    /// What stands between it and its files, if anything does.
    pub change: Option<Change>,
}

/// The models by name, and all of their threads.
#[derive(Debug, Default)]
pub struct Repository {
    state: RwLock<State>,
    /// Versions that were replaced, for those who ask for exactly them while they live.
    retired: Mutex<Vec<Weak<Model>>>,
    orders: Orders,
    roster: Roster,
}

#[derive(Debug, Default)]
struct State {
    models: BTreeMap<ModelName, Listed>,
    /// The models without which the server isn't ready.
    required: BTreeSet<ModelName>,
    /// Whether all that was there at the start has come to an end of loading.
    started: bool,
    /// Where requests go beside the model that they name.
    traffic: BTreeMap<ModelName, Traffic>,
}

impl Repository {
    /// Every model by name, with its status.
    #[must_use]
    pub fn models(&self) -> BTreeMap<ModelName, Listed> {
        self.read().models.clone()
    }

    /// The model of that name, if it takes requests. A name with a label means one version, which is found as long as
    /// anybody uses it; one without means the version of the highest number, where there are several.
    ///
    /// # Errors
    /// When there is no such model, or it is still loading, or it failed to load.
    pub fn model(&self, name: &ModelName) -> Result<Arc<Model>, NoModel> {
        let state = self.read();
        match versions::find(&state.models, name) {
            Some((_, ModelStatus::Ready(model))) => Ok(Arc::clone(model)),
            Some((found, status)) => Err(status.no_model(found)),
            None => {
                let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
                let found = retired.iter().filter_map(Weak::upgrade).find(|model| versions::is_meant(name, model));
                found.ok_or_else(|| versions::none(&state.models, name))
            }
        }
    }

    /// The model that answers a request for the model of that name: the model itself, or its canary where the request
    /// belongs to that one's share and it takes requests.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub(crate) fn answering(&self, name: &ModelName, samples: &[Sample]) -> Result<Arc<Model>, NoModel> {
        let canary = self.read().traffic.get(name).and_then(|traffic| traffic.answers(samples).cloned());
        match canary.map(|canary| self.model(&canary)) {
            Some(Ok(model)) => Ok(model),
            _ => self.model(name),
        }
    }

    /// What scores a request for the model of that name as well, for nobody to wait for.
    pub(crate) fn shadowing(&self, name: &ModelName, samples: &[Sample]) -> Option<(ModelName, Arc<Outcome>)> {
        let state = self.read();
        let traffic = state.traffic.get(name)?;
        Some((traffic.shadows(samples)?.clone(), Arc::clone(&traffic.outcome)))
    }

    /// Where the requests for a model go beside the model itself.
    #[must_use]
    pub fn traffic(&self, name: &ModelName) -> Traffic {
        self.read().traffic.get(name).cloned().unwrap_or_default()
    }

    /// Sends shares of the requests for a model elsewhere from now on, and counts anew.
    ///
    /// # Errors
    /// When one of the models takes no requests.
    pub fn set_traffic(&self, name: &ModelName, traffic: Traffic) -> Result<(), NoModel> {
        self.model(name)?;
        for branch in traffic.canary.iter().chain(&traffic.shadow) {
            self.model(&branch.model)?;
        }
        let mut state = self.write();
        match (&traffic.canary, &traffic.shadow) {
            (None, None) => drop(state.traffic.remove(name)),
            _ => drop(state.traffic.insert(name.clone(), traffic)),
        }
        Ok(())
    }

    /// The name of the only model, if there is only one.
    #[must_use]
    pub fn only_model(&self) -> Option<ModelName> {
        let state = self.read();
        let bases: BTreeSet<&str> = state.models.keys().map(ModelName::base).collect();
        // A base is a name.
        if bases.len() == 1 { bases.first()?.parse().ok() } else { None }
    }

    /// Whether every model has come to an end of loading, or builds engines, and at least one takes requests, among them
    /// all that are required. What is loaded after the start doesn't count: the others take requests meanwhile.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.read();
        let is_ready = |status: &ModelStatus| matches!(status, ModelStatus::Ready(_));
        let mut statuses = state.models.values().map(|listed| &listed.status);
        let starting = !state.started && statuses.clone().any(|status| matches!(status, ModelStatus::Loading));
        let found = |name| versions::find(&state.models, name);
        !starting
            && statuses.any(is_ready)
            && state.required.iter().all(|name| found(name).is_some_and(|(_, status)| is_ready(status)))
    }

    /// Puts a model under a name, or changes how far it has come. Requests that hold another one of that name end on it.
    pub fn set_status(&self, name: ModelName, status: ModelStatus) {
        self.set_all(vec![(name, status)]);
    }

    /// Loads the model of that name, or what lies in its folder now. What takes requests under it does so until the other
    /// is ready, and still does where it can't be loaded. Composites change with their members.
    ///
    /// # Errors
    /// When there is no such model, it can't be loaded, or nobody loads models any more.
    pub async fn load(&self, name: ModelName) -> Result<Loaded, ChangeError> {
        self.orders.give(|reply| Order::Load(name, reply)).await
    }

    /// Takes a model out of memory; requests that it has taken end first.
    ///
    /// # Errors
    /// When there is no such model, others are made of it, or nobody loads models any more.
    pub async fn unload(&self, name: ModelName) -> Result<(), ChangeError> {
        self.orders.give(|reply| Order::Unload(name, reply)).await
    }

    /// Takes no more requests, finishes what was admitted, and ends every thread of every model; loading breaks off.
    /// Blocks until then.
    pub fn drain(&self) {
        self.roster.drain();
        // Whoever loads models looks whether the end has come only when it is woken.
        self.orders.wake();
    }

    /// Gives up what waits and what runs: every request fails at once, and loading breaks off. Doesn't block.
    pub fn stop(&self) {
        self.roster.stop();
        self.orders.wake();
    }

    /// Changes several models at once, so that nobody sees a composite beside members that it isn't made of.
    fn set_all(&self, changes: Vec<(ModelName, ModelStatus)>) {
        for (_, status) in &changes {
            if let ModelStatus::Ready(model) = status {
                model.enlist(&self.roster);
            }
        }
        let replaced: Vec<Listed> = {
            let mut state = self.write();
            let put = |(name, status)| state.models.insert(name, Listed { status, change: None });
            changes.into_iter().filter_map(put).collect()
        };
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|model| model.strong_count() > 0);
        retired.extend(replaced.iter().filter_map(|listed| match &listed.status {
            ModelStatus::Ready(model) => Some(Arc::downgrade(model)),
            _ => None,
        }));
        drop(retired);
        // Dropped without a lock: where no request holds a model, its threads are stopped here.
        drop(replaced);
    }

    /// How far the model of exactly that name has come.
    fn status(&self, name: &ModelName) -> Option<ModelStatus> {
        self.read().models.get(name).map(|listed| listed.status.clone())
    }

    fn set_change(&self, name: &ModelName, change: Option<Change>) {
        if let Some(listed) = self.write().models.get_mut(name) {
            listed.change = change;
        }
    }

    fn forget(&self, name: &ModelName) {
        let removed = self.write().models.remove(name);
        drop(removed);
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A reader or writer that panicked left a whole map behind: entries are replaced, never half edited.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
