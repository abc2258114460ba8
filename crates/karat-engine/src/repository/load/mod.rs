//! Loads a folder of models: reads manifests, opens graphs, warms up, and tells versions apart.
//!
//! One broken model doesn't stop the others: it is listed as failed, with its reason.

mod checkpoint;
mod composite;
mod critic;
mod decoder;
mod digest;
mod graph;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
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

use super::{LoadError, Model, ModelSource, ModelStatus, Repository};
use crate::{
    manifest::{self, Definition, GraphDefinition, GraphSource, Manifest},
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
) -> Result<(), LoadError> {
    let sources = sources(options)?;
    for source in &sources {
        repository.set_status(source.name().clone(), ModelStatus::Loading);
    }
    let prefixes = &PrefixCache::new(options.prefix_cache_bytes, metrics.prefixes().cache());
    let given = graph::Given { repository, library, metrics, options, prefixes };
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
        match read(&given.loader(name, &folder)) {
            Ok(Read::Graph { definition, manifest, builds: false }) => {
                announce(repository, name, given.loader(name, &folder).load(*manifest, *definition));
            }
            Ok(Read::Graph { definition, manifest, builds: true }) => {
                builds.insert(name.clone(), (folder, definition, manifest));
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
    composite::load(repository, composites);
    for (name, (folder, definition, manifest)) in builds {
        if repository.roster.is_closed() {
            return Ok(());
        }
        announce(repository, &name, given.loader(&name, &folder).load(*manifest, *definition));
    }
    composite::load(repository, late_composites);
    Ok(())
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
        manifest: Box<Manifest>,
        /// Whether TensorRT has to build engines first.
        builds: bool,
    },
    Composite(Box<Candidate>),
}

fn read(loader: &graph::Loader<'_>) -> Result<Read, LoadError> {
    let hub = &loader.given.options.hub;
    let manifest = Manifest::read(loader.folder, hub)?;
    match Definition::new(manifest.clone(), loader.folder, hub)? {
        Definition::Graph(mut definition) => {
            let limits = sessions::batch_limits(&definition.scheduling, definition.text.max_tokens);
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
            Ok(Read::Graph { definition, manifest: Box::new(manifest), builds })
        }
        Definition::Composite(definition) => {
            Ok(Read::Composite(Box::new(Candidate { definition, folder: loader.folder.to_owned(), manifest })))
        }
    }
}
