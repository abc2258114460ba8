//! Changes models while the server runs: what is asked for, and what changed in the folders.
//!
//! A model is loaded and tried beside the one that it replaces, and takes over at once, with every composite that is made
//! of it. Where anything fails, what took requests does so still.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use karat_rules::domain::ModelName;
use karat_runtime::{free_memory, ort::external_files};

use super::{GraphSource, ModelLoader, Read, ReadGraph, composite, guarded, sources};
use crate::repository::{
    Change, ChangeError, Listed, LoadError, Loaded, Model, ModelSource, ModelStatus, orders::Order, stamp::Stamp,
};

/// The files of a model.
pub(super) struct Seen {
    folder: PathBuf,
    /// As they were when loading them began, whatever it came to.
    loaded: Stamp,
    /// As they were when they were looked at last, where that was something else. What doesn't change between two looks is
    /// not being written any more.
    last: Option<Stamp>,
}

impl Seen {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), loaded: Stamp::of(folder), last: None }
    }

    /// How many bytes the files had when loading them began.
    pub(super) fn bytes(&self) -> u64 {
        self.loaded.bytes()
    }

    /// The files as they are now, if they are others than those that were loaded and nobody writes them any more.
    fn settled(&mut self) -> Option<Stamp> {
        let now = Stamp::of(&self.folder);
        if now == self.loaded {
            self.last = None;
            return None;
        }
        if self.last.as_ref() == Some(&now) {
            return Some(now);
        }
        self.last = Some(now);
        None
    }
}

impl ModelLoader<'_> {
    /// Carries out what is asked for, and from time to time looks at the files of all models, measures what wasn't yet and
    /// gives memory back that nobody computes with, until the repository is told to end. Blocks.
    pub fn follow(&mut self) {
        self.library.give_back_at_rest();
        self.calibrate();
        let mut looked = Instant::now();
        while !self.repository.roster.is_closed() {
            let every = self.options.watch.every;
            // Whoever asked and has gone doesn't want to know.
            match self.repository.orders.next(every.saturating_sub(looked.elapsed())) {
                Some(Order::Load(name, reply)) => drop(reply.send(self.load(&name))),
                Some(Order::Unload(name, reply)) => drop(reply.send(self.unload(&name))),
                Some(Order::Wake) => {}
                None => {
                    self.look();
                    self.calibrate();
                    self.library.give_back_at_rest();
                    looked = Instant::now();
                }
            }
        }
    }

    /// Loads the model of that name; of several versions, each that isn't loaded as it lies there.
    fn load(&mut self, name: &ModelName) -> Result<Loaded, ChangeError> {
        let sources = sources::all(self.options)?;
        if let Some(source) = sources.iter().find(|source| source.name() == name) {
            return self.load_source(source);
        }
        let versions: Vec<_> = sources.iter().filter(|source| source.name().base() == name.as_str()).collect();
        if versions.is_empty() {
            // What it was loaded from is gone, whatever is still served.
            return Err(ChangeError::Unknown { name: name.clone() });
        }
        let before = self.repository.model(name).ok().map(|model| model.version.clone());
        for source in versions {
            if self.is_stale(source) {
                self.load_source(source)?;
            }
        }
        match self.repository.model(name) {
            Ok(model) => Ok(Loaded { version: model.version.clone(), before }),
            Err(_) => Err(ChangeError::Unknown { name: name.clone() }),
        }
    }

    /// Whether a model isn't loaded as it lies there now.
    fn is_stale(&self, source: &ModelSource) -> bool {
        let as_loaded = self.seen.get(source.name()).is_some_and(|seen| Stamp::of(&seen.folder) == seen.loaded);
        !as_loaded || self.repository.model(source.name()).is_err()
    }

    fn load_source(&mut self, source: &ModelSource) -> Result<Loaded, ChangeError> {
        let begun = Instant::now();
        let name = source.name();
        let old = match self.repository.status(name) {
            Some(ModelStatus::Ready(model)) => Some(model),
            _ => None,
        };
        match &old {
            Some(_) => self.repository.set_change(name, Some(Change::Loading)),
            None => self.repository.set_status(name.clone(), ModelStatus::Loading),
        }
        match guarded(|| self.build(source, old.as_deref())) {
            Ok(model) => {
                karat_runtime::give_back_memory();
                let version = model.version.clone();
                let before = old.map(|old| old.version.clone());
                if before.as_ref() == Some(&version) {
                    tracing::info!(model = %name, %version, "model is loaded as it lies there already");
                    self.repository.set_change(name, None);
                } else {
                    let (seconds, replaces) =
                        (begun.elapsed().as_secs_f64(), before.as_ref().map(tracing::field::display));
                    tracing::info!(model = %name, %version, replaces, seconds, "model ready");
                    self.put(name, model);
                }
                Ok(Loaded { version, before })
            }
            Err(error) => {
                tracing::error!(model = %name, %error, served = old.is_some(), "model failed to load");
                let reason = error.to_string();
                match old {
                    Some(_) => self.repository.set_change(name, Some(Change::Failed(reason))),
                    None => self.repository.set_status(name.clone(), ModelStatus::Failed(reason)),
                }
                Err(error.into())
            }
        }
    }

    /// Loads a model that nobody sees yet.
    fn build(&mut self, source: &ModelSource, old: Option<&Model>) -> Result<Model, LoadError> {
        let name = source.name();
        let folder = source.locate(&self.options.hub).map_err(Box::new)?;
        // Before anything is read, so that what changes meanwhile is noticed.
        let seen = Seen::of(&folder);
        let bytes = seen.bytes();
        self.seen.insert(name.clone(), seen);
        match self.read(name, &folder)? {
            Read::Graph(ReadGraph { definition, written, builds, .. }) => {
                if old.is_some() {
                    check_memory(&folder, bytes, &definition.graphs)?;
                } else if builds {
                    self.repository.set_status(name.clone(), ModelStatus::Building(Instant::now()));
                }
                self.composites.remove(name);
                self.given().loader(name, &folder).replacing(old).load(*written, *definition)
            }
            Read::Composite(candidate) => {
                let before = self.composites.insert(name.clone(), *candidate);
                let all = self.composites.keys().cloned().collect();
                let built = match self.in_order(all).1.contains(name) {
                    true => Err(self.circle(name)),
                    false => self.composite(name, &self.repository.models()),
                };
                if built.is_err()
                    && let Some(before) = before
                {
                    self.composites.insert(name.clone(), before);
                }
                built
            }
        }
    }

    /// Lets a model take over, with the composites that are made of it.
    fn put(&self, name: &ModelName, model: Model) {
        let mut models = self.repository.models();
        let mut changes = vec![(name.clone(), ModelStatus::Ready(Arc::new(model)))];
        let listed = |status: &ModelStatus| Listed { status: status.clone(), change: None };
        models.insert(name.clone(), listed(&changes[0].1));
        let mut affected = composite::awaiting(&self.composites, BTreeSet::from([name.clone()]));
        let is_unloaded =
            |name: &ModelName| models.get(name).is_some_and(|listed| matches!(listed.status, ModelStatus::Unloaded));
        affected.retain(|composite| composite != name && !is_unloaded(composite));
        let mut kept = Vec::new();
        for composite in self.in_order(affected.into_iter().collect()).0 {
            match guarded(|| self.composite(&composite, &models)) {
                Ok(model) => {
                    tracing::info!(model = %composite, version = %model.version, "composite follows its member");
                    let status = ModelStatus::Ready(Arc::new(model));
                    models.insert(composite.clone(), listed(&status));
                    changes.push((composite, status));
                }
                Err(error) => kept.push((composite, error)),
            }
        }
        self.repository.set_all(changes);
        for (composite, error) in kept {
            tracing::error!(model = %composite, %error, "composite stays with the members that it has");
            self.repository.set_change(&composite, Some(Change::Failed(error.to_string())));
        }
    }

    fn unload(&mut self, name: &ModelName) -> Result<(), ChangeError> {
        let models = self.repository.models();
        let mut named: BTreeSet<ModelName> = models.keys().filter(|found| *found == name).cloned().collect();
        if named.is_empty() {
            named = models.keys().filter(|found| found.base() == name.as_str()).cloned().collect();
        }
        if named.is_empty() {
            return Err(ChangeError::Unknown { name: name.clone() });
        }
        let is_served = |composite: &ModelName| {
            models.get(composite).is_some_and(|listed| matches!(listed.status, ModelStatus::Ready(_)))
        };
        let users = self.composites.iter().filter(|(composite, candidate)| {
            !named.contains(*composite) && is_served(composite) && candidate.has_any(&named)
        });
        let users: Vec<&str> = users.map(|(composite, _)| composite.as_str()).collect();
        if !users.is_empty() {
            return Err(ChangeError::InUse { name: name.clone(), composites: users.join(", ") });
        }
        for name in &named {
            tracing::info!(model = %name, "model unloaded");
        }
        self.repository.set_all(named.into_iter().map(|name| (name, ModelStatus::Unloaded)).collect());
        Ok(())
    }

    /// Looks at the files of all models.
    fn look(&mut self) {
        let Ok(sources) = sources::all(self.options) else { return };
        for source in &sources {
            let (name, Some(folder)) = (source.name(), source.local()) else { continue };
            let seen = self.seen.entry(name.clone()).or_insert_with(|| Seen {
                folder: folder.to_owned(),
                loaded: Stamp::default(),
                last: None,
            });
            if seen.settled().is_none() {
                continue;
            }
            let is_unloaded =
                self.repository.status(name).is_some_and(|status| matches!(status, ModelStatus::Unloaded));
            if self.options.watch.follows && !is_unloaded {
                // It tells what it comes to itself.
                let _ = self.load_source(source);
            } else if self.repository.model(name).is_ok() {
                self.repository.set_change(name, Some(Change::Noticed));
            }
        }
        if self.options.watch.follows {
            self.unload_gone(&sources);
        }
    }

    /// Unloads what lies nowhere any more.
    fn unload_gone(&mut self, sources: &[ModelSource]) {
        let is_there = |name: &ModelName| sources.iter().any(|source| source.name() == name);
        let gone: Vec<ModelName> = self.seen.keys().filter(|name| !is_there(name)).cloned().collect();
        for name in gone {
            match self.unload(&name) {
                Ok(()) | Err(ChangeError::Unknown { .. }) => {
                    self.seen.remove(&name);
                    self.composites.remove(&name);
                    self.repository.forget(&name);
                }
                Err(_) => self.repository.set_change(&name, Some(Change::Noticed)),
            }
        }
    }
}

/// Refuses to load a second version beside the first where the weights alone don't fit. Those of checkpoints are counted
/// when they are opened. `bytes` are those of all files in the folder: where as many are free, no graph has to be read for
/// the names of its weights.
fn check_memory(folder: &Path, bytes: u64, graphs: &[GraphSource]) -> Result<(), LoadError> {
    let Some(free) = free_memory() else { return Ok(()) };
    let size = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let files = graphs.iter().filter_map(|graph| match graph {
        GraphSource::File(file) => Some(file),
        GraphSource::Checkpoint(_) => None,
    });
    if bytes <= free && files.clone().all(|file| file.starts_with(folder)) {
        return Ok(());
    }
    let needed: u64 = files
        .map(|file| {
            let beside = file.parent().unwrap_or(folder);
            let weights = external_files(file).unwrap_or_default();
            size(file.clone()) + weights.iter().map(|weights| size(beside.join(weights))).sum::<u64>()
        })
        .sum();
    if free < needed { Err(LoadError::Memory { folder: folder.to_owned(), needed, free }) } else { Ok(()) }
}
