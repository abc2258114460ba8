//! Finds models, each once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{HubError, HubSettings, ModelId, cache};

/// The files of a model at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// The model, with the commit as its revision.
    pub id: ModelId,
}

/// The Hub, by way of its cache.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    /// What was found: a model stays the commit that it was at first.
    found: Mutex<BTreeMap<ModelId, Snapshot>>,
}

impl Hub {
    /// A Hub of these settings.
    #[must_use]
    pub fn new(settings: HubSettings) -> Self {
        Self { settings, found: Mutex::default() }
    }

    /// The folder of a model, fetched if it is not in the cache. Blocks meanwhile, and tells in the log how far it has come.
    ///
    /// A commit that is in the cache needs no network. Of a branch or a tag, the Hub is asked which commit it is; where the
    /// Hub can't be reached, the one that the cache knows is taken.
    ///
    /// # Errors
    /// When the model isn't in the cache and can't be fetched.
    pub fn find(&self, id: &ModelId) -> Result<Snapshot, HubError> {
        // Held while fetching, so that nobody fetches the same file twice.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = found.get(id) {
            return Ok(known.clone());
        }
        let (folder, commit) = self.look_up(id)?;
        let snapshot = Snapshot { folder, id: id.at(&commit) };
        tracing::info!(model = %id, %commit, folder = %snapshot.folder.display(), "model of the Hub");
        found.insert(id.clone(), snapshot.clone());
        Ok(snapshot)
    }

    /// The model that a folder is of, among those that were found.
    #[must_use]
    pub fn snapshot_in(&self, folder: &Path) -> Option<Snapshot> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.values().find(|snapshot| snapshot.folder == folder).cloned()
    }

    fn look_up(&self, id: &ModelId) -> Result<(PathBuf, String), HubError> {
        let cached = cache::find(&self.settings.cache, id);
        let whole = cached.clone().filter(|(folder, _)| cache::is_whole(folder));
        match (whole, cached) {
            (Some(pinned), _) if id.commit().is_some() && cache::is_complete(&self.settings.cache, id, &pinned.1) => {
                Ok(pinned)
            }
            (whole, cached) if self.settings.offline => whole.or(cached).ok_or_else(|| HubError::NotCached {
                id: id.clone(),
                cache: self.settings.cache.clone(),
                reason: "HF_HUB_OFFLINE is set",
            }),
            (whole, _) => self.fetch(id, whole),
        }
    }

    #[cfg(feature = "fetch")]
    fn fetch(&self, id: &ModelId, cached: Option<(PathBuf, String)>) -> Result<(PathBuf, String), HubError> {
        match (crate::fetch::fetch(&self.settings, id), cached) {
            (Err(error @ HubError::Unreachable { .. }), Some(cached)) => {
                tracing::warn!(model = %id, %error, "the Hub can't be reached: the commit that is in the cache is taken");
                Ok(cached)
            }
            (fetched, _) => fetched,
        }
    }

    #[cfg(not(feature = "fetch"))]
    fn fetch(&self, id: &ModelId, cached: Option<(PathBuf, String)>) -> Result<(PathBuf, String), HubError> {
        cached.ok_or_else(|| HubError::NotCached {
            id: id.clone(),
            cache: self.settings.cache.clone(),
            reason: "this build of karat fetches nothing (the feature `hub`)",
        })
    }
}
