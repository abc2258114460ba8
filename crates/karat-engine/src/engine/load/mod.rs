//! Loads a model repository: reads manifests, opens graphs, warms up, and tells versions apart.
//!
//! One broken model doesn't stop the others: it is listed as failed, with its reason.

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

use karat_rules::{aggregate, domain::ModelName, transform::Chain};
use karat_runtime::{
    RuntimeError,
    ort::{GraphFile, Library},
    prefix::PrefixCache,
};

use super::{CompositeMember, Engine, Model, ModelBody, ModelStatus, WrittenRules};
use crate::{
    manifest::{self, CompositeDefinition, Definition, GraphDefinition, Manifest, ManifestError},
    schedule::StartError,
    telemetry::EngineMetrics,
    text::TextError,
};

/// Where models come from and what they may use.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The model repository: a folder with one folder for each model.
    pub repository: PathBuf,
    /// The most tokens that may wait for one graph before requests are refused.
    pub queue_tokens: usize,
    /// How long measuring a graph may take when it is loaded for the first time; zero for not at all.
    pub calibration: Duration,
    /// How much memory keys and values of prefixes may take, in bytes.
    pub prefix_cache_bytes: u64,
}

/// Why a model, or the whole repository, can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The repository's folder can't be read.
    #[error("the model repository {path} can't be read: {source}; name a folder with --models")]
    Repository {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No folder of the repository holds a manifest.
    #[error("the model repository {path} holds no model; put a folder with a model.toml into it")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The tokenizer or the template is wrong.
    #[error("{path}: {source}")]
    Text {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: TextError,
    },
    /// The graph or its provider can't start.
    #[error("{path}: {source}")]
    Runtime {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: RuntimeError,
    },
    /// A file that decides scores can't be read.
    #[error("{path}: can't be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A composite names a model that isn't there.
    #[error("{path}: ensemble: there is no model {member}; the repository has {known}")]
    NoMember {
        /// The manifest.
        path: PathBuf,
        /// The missing model.
        member: ModelName,
        /// The names of the repository.
        known: String,
    },
    /// A composite names a model that failed.
    #[error("{path}: ensemble: the model {member} failed to load; mend it first")]
    BrokenMember {
        /// The manifest.
        path: PathBuf,
        /// The failed model.
        member: ModelName,
    },
    /// Composites name each other in a circle.
    #[error("{path}: ensemble: the model is part of itself, by way of {members}; break the circle")]
    Circle {
        /// The manifest.
        path: PathBuf,
        /// The members that wait for each other.
        members: String,
    },
    /// A member's own rules are wrong.
    #[error("{path}: ensemble: {member}: {reason}")]
    MemberRule {
        /// The manifest.
        path: PathBuf,
        /// The member.
        member: ModelName,
        /// What is wrong.
        reason: String,
    },
    /// The workers can't start.
    #[error("{path}: {source}")]
    Workers {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        source: StartError,
    },
    /// The first forward pass failed.
    #[error(
        "{path}: the graph fails on a sample of {tokens} tokens: {reason}; lower text.max_tokens, or mend the graph"
    )]
    WarmUp {
        /// The manifest.
        path: PathBuf,
        /// The length of the sample.
        tokens: usize,
        /// What the pass said.
        reason: String,
    },
}

/// A manifest that was read and waits for its turn.
struct Candidate {
    folder: PathBuf,
    manifest: Manifest,
}

/// Loads every model of a repository into `engine`, one after another, graphs before composites. Models whose engines
/// TensorRT has to build come last, with the composites that need them: they take minutes, and nobody waits for them.
/// Blocks.
///
/// Breaks off where the engine is told to end meanwhile.
///
/// # Errors
/// Only when the repository itself can't be read or is empty; a model's own error becomes its status.
pub fn load_repository(
    engine: &Engine,
    library: &Library,
    metrics: &EngineMetrics,
    options: &LoadOptions,
) -> Result<(), LoadError> {
    let folders = folders(&options.repository)?;
    for name in folders.keys() {
        engine.set_status(name.clone(), ModelStatus::Loading);
    }
    let prefixes = &PrefixCache::new(options.prefix_cache_bytes, metrics.prefixes().cache());
    let loader = |name, folder| graph::Loader { engine, library, metrics, options, prefixes, name, folder };
    let mut composites = BTreeMap::new();
    let mut builds = BTreeMap::new();
    for (name, folder) in &folders {
        if engine.roster.is_closed() {
            return Ok(());
        }
        match read(&loader(name, folder)) {
            Ok(Read::Graph { definition, manifest, builds: false }) => {
                announce(engine, name, loader(name, folder).load(*manifest, *definition));
            }
            Ok(Read::Graph { definition, manifest, builds: true }) => {
                builds.insert(name.clone(), (definition, manifest));
            }
            Ok(Read::Composite(definition, candidate)) => {
                composites.insert(name.clone(), (definition, *candidate));
            }
            Err(error) => announce(engine, name, Err(error)),
        }
    }
    let late = awaiting(&composites, builds.keys().cloned().collect());
    for name in &late {
        tracing::info!(model = %name, "model waits for engines that TensorRT builds");
        engine.set_status(name.clone(), ModelStatus::Building(Instant::now()));
    }
    let (late_composites, composites) = composites.into_iter().partition(|(name, _)| late.contains(name));
    load_composites(engine, composites);
    for (name, folder) in &folders {
        if engine.roster.is_closed() {
            return Ok(());
        }
        if let Some((definition, manifest)) = builds.remove(name) {
            announce(engine, name, loader(name, folder).load(*manifest, *definition));
        }
    }
    load_composites(engine, late_composites);
    Ok(())
}

/// Those of `late`, and every composite that has one of them somewhere below it.
fn awaiting(
    composites: &BTreeMap<ModelName, (CompositeDefinition, Candidate)>,
    mut late: BTreeSet<ModelName>,
) -> BTreeSet<ModelName> {
    loop {
        let waits =
            |definition: &CompositeDefinition| definition.members.iter().any(|member| late.contains(&member.model));
        let next = composites.iter().find(|(name, (definition, _))| !late.contains(*name) && waits(definition));
        let Some((name, _)) = next else { return late };
        late.insert(name.clone());
    }
}

fn announce(engine: &Engine, name: &ModelName, loaded: Result<Model, LoadError>) {
    if engine.roster.is_closed() {
        // A model whose threads were stopped under it is not broken.
        return;
    }
    match loaded {
        Ok(model) => {
            tracing::info!(model = %name, version = %model.version, "model ready");
            engine.set_status(name.clone(), ModelStatus::Ready(Arc::new(model)));
        }
        Err(error) => {
            tracing::error!(model = %name, %error, "model failed to load");
            engine.set_status(name.clone(), ModelStatus::Failed(error.to_string()));
        }
    }
}

/// The model folders of the repository by name.
fn folders(repository: &Path) -> Result<BTreeMap<ModelName, PathBuf>, LoadError> {
    let unreadable = |source| LoadError::Repository { path: repository.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(repository).map_err(unreadable)? {
        let folder = entry.map_err(unreadable)?.path();
        if !folder.join(manifest::FILE_NAME).is_file() {
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
    Composite(CompositeDefinition, Box<Candidate>),
}

fn read(loader: &graph::Loader<'_>) -> Result<Read, LoadError> {
    let manifest = Manifest::read(loader.folder)?;
    match Definition::new(manifest.clone(), loader.folder)? {
        Definition::Graph(mut definition) => {
            let limits = sessions::batch_limits(&definition.scheduling, definition.text.max_tokens);
            definition.providers =
                definition.providers.into_iter().map(|provider| provider.for_batches(&limits)).collect();
            // What is no graph is told when it is loaded.
            let builds = definition.files.iter().any(|path| {
                let file = GraphFile { path, providers: &definition.providers };
                loader.library.must_build(&file).unwrap_or(false)
            });
            Ok(Read::Graph { definition, manifest: Box::new(manifest), builds })
        }
        Definition::Composite(definition) => {
            Ok(Read::Composite(definition, Box::new(Candidate { folder: loader.folder.to_owned(), manifest })))
        }
    }
}

/// Loads composites as soon as all their members are there; what is left over is broken.
fn load_composites(engine: &Engine, mut waiting: BTreeMap<ModelName, (CompositeDefinition, Candidate)>) {
    loop {
        let names: BTreeSet<ModelName> = waiting.keys().cloned().collect();
        let next = waiting
            .iter()
            .find(|(_, (definition, _))| definition.members.iter().all(|member| !names.contains(&member.model)));
        let Some(name) = next.map(|(name, _)| name.clone()) else { break };
        if let Some((definition, candidate)) = waiting.remove(&name) {
            let loaded = composite(engine, &name, definition, candidate);
            announce(engine, &name, loaded);
        }
    }
    for (name, (definition, candidate)) in waiting {
        let members: Vec<&str> = definition.members.iter().map(|member| member.model.as_str()).collect();
        let path = candidate.folder.join(manifest::FILE_NAME);
        announce(engine, &name, Err(LoadError::Circle { path, members: members.join(", ") }));
    }
}

fn composite(
    engine: &Engine,
    name: &ModelName,
    definition: CompositeDefinition,
    candidate: Candidate,
) -> Result<Model, LoadError> {
    let path = candidate.folder.join(manifest::FILE_NAME);
    let models = engine.models();
    let mut members = Vec::with_capacity(definition.members.len());
    for member in definition.members {
        let model = match models.get(&member.model) {
            Some(ModelStatus::Ready(model)) => Arc::clone(model),
            Some(_) => return Err(LoadError::BrokenMember { path, member: member.model }),
            None => {
                let known: Vec<&str> = models.keys().map(ModelName::as_str).collect();
                return Err(LoadError::NoMember { path, member: member.model, known: known.join(", ") });
            }
        };
        let rule = |reason: String| LoadError::MemberRule { path: path.clone(), member: member.model.clone(), reason };
        let aggregate = member.aggregate.as_ref().map(|choice| aggregate::CATALOGUE.build(choice)).transpose();
        let transforms =
            member.transforms.as_ref().map(|choices| Chain::build(choices, model.gives_steps())).transpose();
        members.push(CompositeMember {
            aggregate: aggregate.map_err(|error| rule(error.to_string()))?,
            transforms: transforms.map_err(|error| rule(error.to_string()))?,
            model,
        });
    }
    let mut digest = digest::Digest::default();
    digest.file(&candidate.folder, Path::new(manifest::FILE_NAME))?;
    members.iter().for_each(|member| digest.text(member.model.version.as_str()));
    Ok(Model {
        name: name.clone(),
        version: digest.version(),
        description: candidate.manifest.description,
        license: candidate.manifest.license,
        aggregate: definition.aggregate,
        transforms: definition.transforms,
        written: WrittenRules { aggregate: candidate.manifest.aggregate, transforms: candidate.manifest.transforms },
        body: ModelBody::Composite(members),
    })
}
