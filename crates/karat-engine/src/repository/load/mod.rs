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
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use karat_rules::domain::ModelName;
use karat_runtime::{
    ort::{GraphFile, Library},
    prefix::PrefixCache,
};

use super::{LoadError, Model, ModelStatus, Repository, Score};
use crate::{
    manifest::{self, Definition, GraphDefinition, GraphSource, Manifest},
    telemetry::EngineMetrics,
};
use composite::Candidate;

/// Where models come from and what they may use.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The model repository: a folder with one folder for each model.
    pub repository: PathBuf,
    /// The one model that is wanted; without it, all.
    pub only: Option<ModelName>,
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
    score: Score,
) -> Result<(), LoadError> {
    let mut folders = folders(&options.repository)?;
    if let Some(only) = &options.only {
        folders.retain(|name, _| name == only);
    }
    for name in folders.keys() {
        repository.set_status(name.clone(), ModelStatus::Loading);
    }
    let prefixes = &PrefixCache::new(options.prefix_cache_bytes, metrics.prefixes().cache());
    let loader = |name, folder| graph::Loader { repository, library, metrics, options, prefixes, name, folder, score };
    let mut composites = BTreeMap::new();
    let mut builds = BTreeMap::new();
    for (name, folder) in &folders {
        if repository.roster.is_closed() {
            return Ok(());
        }
        match read(&loader(name, folder)) {
            Ok(Read::Graph { definition, manifest, builds: false }) => {
                announce(repository, name, loader(name, folder).load(*manifest, *definition));
            }
            Ok(Read::Graph { definition, manifest, builds: true }) => {
                builds.insert(name.clone(), (definition, manifest));
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
    for (name, folder) in &folders {
        if repository.roster.is_closed() {
            return Ok(());
        }
        if let Some((definition, manifest)) = builds.remove(name) {
            announce(repository, name, loader(name, folder).load(*manifest, *definition));
        }
    }
    composite::load(repository, late_composites, score);
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

/// The model folders of the repository by name.
fn folders(repository: &Path) -> Result<BTreeMap<ModelName, PathBuf>, LoadError> {
    let unreadable = |source| LoadError::Repository { path: repository.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(repository).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        if !manifest::is_model(&folder) {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().parse::<ModelName>();
        match name {
            Ok(name) => {
                found.insert(name, folder);
            }
            Err(error) => tracing::error!(folder = %folder.display(), %error, "model folder skipped: rename it"),
        }
    }
    if found.is_empty() {
        return Err(LoadError::Empty { path: repository.to_owned() });
    }
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
    let manifest = Manifest::read(loader.folder)?;
    match Definition::new(manifest.clone(), loader.folder)? {
        Definition::Graph(mut definition) => {
            let limits = sessions::batch_limits(&definition.scheduling, definition.text.max_tokens);
            definition.providers =
                definition.providers.into_iter().map(|provider| provider.for_batches(&limits)).collect();
            // What is no graph is told when it is loaded.
            let builds = definition.graphs.iter().any(|graph| match graph {
                GraphSource::File(path) => {
                    let file = GraphFile { path, providers: &definition.providers };
                    loader.library.must_build(&file).unwrap_or(false)
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
