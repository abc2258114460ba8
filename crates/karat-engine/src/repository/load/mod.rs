//! Loads a folder of models: reads manifests, opens graphs, warms up, and tells versions apart.
//!
//! One broken model doesn't stop the others: it is listed as failed, with its reason.

mod checkpoint;
mod composite;
mod critic;
mod decoder;
mod digest;
mod graph;
mod packed;
mod pixels;
mod probes;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use karat_hub::Hub;
use karat_rules::domain::ModelName;
use karat_runtime::{
    ort::{GraphFile, Library},
    prefix::PrefixCache,
};

use super::{LoadError, Model, ModelSource, ModelStatus, Repository, Score};
use crate::{
    manifest::{self, Definition, GraphDefinition, GraphSource, Written},
    telemetry::EngineMetrics,
};
use composite::Candidate;

/// Where models come from and what they may use.
#[derive(Debug)]
pub struct LoadOptions {
    /// The model repository, if there is one: a folder with one folder for each model.
    pub repository: Option<PathBuf>,
    /// Models beside those of the repository.
    pub models: Vec<ModelSource>,
    /// Where models of the Hugging Face Hub come from.
    pub hub: Hub,
    /// The most tokens that may wait for one graph before requests are refused.
    pub queue_tokens: usize,
    /// The longest that what waits for one graph may be expected to take before requests are refused; without it, tokens
    /// alone are bounded.
    pub queue_time: Option<Duration>,
    /// How long measuring a graph may take when it is loaded for the first time; zero for not at all.
    pub calibration: Duration,
    /// How much memory keys and values of prefixes may take, in bytes.
    pub prefix_cache_bytes: u64,
}

/// See [`Repository::load`].
pub(super) fn load(
    repository: &Repository,
    library: &Library,
    metrics: &EngineMetrics,
    options: &LoadOptions,
    score: Score,
) -> Result<(), LoadError> {
    let sources = sources(options)?;
    for source in &sources {
        repository.set_status(source.name().clone(), ModelStatus::Loading);
    }
    let prefixes = &PrefixCache::new(options.prefix_cache_bytes, metrics.prefixes().cache());
    let given = graph::Given { repository, library, metrics, options, prefixes, score };
    let mut composites = BTreeMap::new();
    let mut builds = BTreeMap::new();
    for source in &sources {
        if repository.roster.is_closed() {
            return Ok(());
        }
        let name = source.name();
        let folder = match source.locate(&options.hub) {
            Ok(folder) => folder,
            Err(error) => {
                announce(repository, name, Err(Box::new(error).into()));
                continue;
            }
        };
        match guarded(|| read(&given.loader(name, &folder))) {
            Ok(Read::Graph { definition, written, builds: false }) => {
                announce(repository, name, guarded(|| given.loader(name, &folder).load(*written, *definition)));
            }
            Ok(Read::Graph { definition, written, builds: true }) => {
                builds.insert(name.clone(), (folder, definition, written));
            }
            Ok(Read::Composite(candidate)) => {
                composites.insert(name.clone(), *candidate);
            }
            Err(error) => announce(repository, name, Err(error)),
        }
    }
    let late = composite::awaiting(&composites, builds.keys().cloned().collect());
    for name in &late {
        tracing::info!(model = %name, "model waits for engines that TensorRT builds");
        repository.set_status(name.clone(), ModelStatus::Building(Instant::now()));
    }
    let (late_composites, composites) = composites.into_iter().partition(|(name, _)| late.contains(name));
    composite::load(repository, composites, score);
    for (name, (folder, definition, written)) in builds {
        if repository.roster.is_closed() {
            return Ok(());
        }
        announce(repository, &name, guarded(|| given.loader(&name, &folder).load(*written, *definition)));
    }
    composite::load(repository, late_composites, score);
    Ok(())
}

/// A panic while one model is loaded keeps no other from being loaded.
fn guarded<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // What it left half done is dropped with it: nothing of a model is seen before it is announced.
    panic::catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(LoadError::Panicked))
}

fn announce(repository: &Repository, name: &ModelName, loaded: Result<Model, LoadError>) {
    if repository.roster.is_closed() {
        // A model whose threads were stopped under it is not broken.
        return;
    }
    match loaded {
        Ok(model) => {
            tracing::info!(model = %name, version = %model.version, "model ready");
            repository.set_status(name.clone(), ModelStatus::Ready(Arc::new(model)));
        }
        Err(error) => {
            tracing::error!(model = %name, %error, "model failed to load");
            repository.set_status(name.clone(), ModelStatus::Failed(error.to_string()));
        }
    }
}

/// Every model by its place: those of the repository, then those that are named; what may have to be fetched last.
fn sources(options: &LoadOptions) -> Result<Vec<ModelSource>, LoadError> {
    let mut sources = options.repository.as_deref().map(folders).transpose()?.unwrap_or_default();
    sources.extend(options.models.iter().cloned());
    let mut names = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !names.insert(source.name())) {
        return Err(LoadError::Twice { name: twice.name().clone() });
    }
    sources.sort_by_key(ModelSource::is_remote);
    Ok(sources)
}

/// The model folders of the repository, by name.
fn folders(repository: &Path) -> Result<Vec<ModelSource>, LoadError> {
    let unreadable = |source| LoadError::Repository { path: repository.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(repository).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        if !manifest::is_model(&folder) {
            continue;
        }
        match ModelSource::folder(folder.clone()) {
            Ok(source) => found.push(source),
            Err(error) => tracing::error!(folder = %folder.display(), %error, "model folder skipped: rename it"),
        }
    }
    if found.is_empty() {
        return Err(LoadError::Empty { path: repository.to_owned() });
    }
    found.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(found)
}

/// What a folder defines.
enum Read {
    Graph {
        definition: Box<GraphDefinition>,
        written: Box<Written>,
        /// Whether TensorRT has to build engines first.
        builds: bool,
    },
    Composite(Box<Candidate>),
}

fn read(loader: &graph::Loader<'_>) -> Result<Read, LoadError> {
    let hub = &loader.given.options.hub;
    let written = Written::read(loader.folder, hub)?;
    match Definition::new(written.manifest.clone(), loader.folder, hub)? {
        Definition::Graph(mut definition) => {
            let limits = sessions::batch_limits(&definition.scheduling, definition.longest());
            definition.providers =
                definition.providers.into_iter().map(|provider| provider.for_batches(&limits)).collect();
            // What is no graph is told when it is loaded.
            let builds = definition.graphs.iter().any(|graph| match graph {
                GraphSource::File(path) => {
                    let file = GraphFile { path, providers: &definition.providers };
                    loader.given.library.must_build(&file).unwrap_or(false)
                }
                GraphSource::Checkpoint(_) => false,
            });
            Ok(Read::Graph { definition, written: Box::new(written), builds })
        }
        Definition::Composite(definition) => {
            let manifest = written.manifest;
            Ok(Read::Composite(Box::new(Candidate { definition, folder: loader.folder.to_owned(), manifest })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_failure_of_one_model() {
        let broken: Result<(), _> = guarded(|| panic!("planted"));
        assert!(matches!(broken, Err(LoadError::Panicked)));
        assert!(guarded(|| Ok(1)).is_ok_and(|one| one == 1));
    }
}
