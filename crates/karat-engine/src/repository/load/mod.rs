//! Loads a folder of models: reads manifests, opens graphs, warms up, and tells versions apart; and later, while the server
//! runs, loads what is asked for or what changed.
//!
//! One broken model doesn't stop the others: it is listed as failed, with its reason.

mod checkpoint;
mod composite;
mod critic;
mod decoder;
mod digest;
mod graph;
mod packed;
mod probes;
mod replace;
mod sessions;
mod sources;
mod trial;

use std::{
    collections::BTreeMap,
    fmt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use karat_hub::Hub;
use karat_rules::domain::ModelName;
use karat_runtime::{
    give_back_memory,
    ort::{GraphFile, Library},
    prefix::PrefixCache,
};

use super::{LoadError, Model, ModelSource, ModelStatus, Repository, Score};
use crate::{
    manifest::{Definition, GraphDefinition, GraphSource, Written},
    telemetry::EngineMetrics,
};
use composite::Candidate;
use replace::Seen;

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
    /// The models without which the server isn't ready.
    pub required: Vec<ModelName>,
    /// How often files are looked at, and what happens to those that changed.
    pub watch: Watch,
}

/// What happens to files that change while their model takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// How often they are looked at.
    pub every: Duration,
    /// Whether what lies in the folders then is loaded, and what is gone unloaded; if not, it is only told.
    pub follows: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self { every: Duration::from_secs(10), follows: false }
    }
}

/// Loads the models of a repository: all of them at the start, and one after another what is asked for later.
pub struct ModelLoader<'a> {
    repository: &'a Repository,
    library: &'a Library,
    metrics: &'a EngineMetrics,
    options: &'a LoadOptions,
    score: Score,
    prefixes: PrefixCache,
    /// Every composite that could be read, to be put together anew when a member changes.
    composites: BTreeMap<ModelName, Candidate>,
    /// The files of every model, as they were when it was loaded.
    seen: BTreeMap<ModelName, Seen>,
}

impl<'a> ModelLoader<'a> {
    /// See `Engine::loader`.
    pub(crate) fn new(
        repository: &'a Repository,
        library: &'a Library,
        metrics: &'a EngineMetrics,
        options: &'a LoadOptions,
        score: Score,
    ) -> Self {
        repository.orders.set_taken(true);
        let prefixes = PrefixCache::new(options.prefix_cache_bytes, metrics.prefixes().cache());
        let (composites, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { repository, library, metrics, options, score, prefixes, composites, seen }
    }

    /// Loads every model, one after another, graphs before composites. Models whose engines TensorRT has to build come
    /// last, with the composites that need them: they take minutes, and nobody waits for them. Models beside which their
    /// reference's scores lie (`expected.json`) are held to these. Blocks, and breaks off where the repository is told to
    /// end meanwhile.
    ///
    /// # Errors
    /// Only when the folder itself can't be read or is empty, or a required model isn't in it; a model's own error becomes
    /// its status.
    pub fn load_all(&mut self) -> Result<(), LoadError> {
        let sources = sources::all(self.options)?;
        let names = || sources.iter().map(ModelSource::name);
        for required in &self.options.required {
            if !names().any(|name| name == required || name.base() == required.as_str()) {
                return Err(LoadError::Required { name: required.clone() });
            }
        }
        for name in names() {
            self.repository.set_status(name.clone(), ModelStatus::Loading);
        }
        self.repository.write().required = self.options.required.iter().cloned().collect();
        let mut composites = Vec::new();
        let mut builds = BTreeMap::new();
        for source in &sources {
            if self.repository.roster.is_closed() {
                return Ok(());
            }
            let name = source.name();
            let folder = match source.locate(&self.options.hub) {
                Ok(folder) => folder,
                Err(error) => {
                    self.announce(name, Err(Box::new(error).into()));
                    continue;
                }
            };
            self.seen.insert(name.clone(), Seen::of(&folder));
            match guarded(|| self.read(name, &folder)) {
                Ok(Read::Graph { definition, written, builds: false }) => {
                    let loaded = guarded(|| self.given().loader(name, &folder).load(*written, *definition));
                    self.announce(name, loaded);
                }
                Ok(Read::Graph { definition, written, builds: true }) => {
                    builds.insert(name.clone(), (folder, definition, written));
                }
                Ok(Read::Composite(candidate)) => {
                    self.composites.insert(name.clone(), *candidate);
                    composites.push(name.clone());
                }
                Err(error) => self.announce(name, Err(error)),
            }
        }
        let late = composite::awaiting(&self.composites, builds.keys().cloned().collect());
        for name in &late {
            tracing::info!(model = %name, "model waits for engines that TensorRT builds");
            self.repository.set_status(name.clone(), ModelStatus::Building(Instant::now()));
        }
        let (late_composites, composites) = composites.into_iter().partition(|name| late.contains(name));
        self.load_composites(composites);
        for (name, (folder, definition, written)) in builds {
            if self.repository.roster.is_closed() {
                return Ok(());
            }
            let loaded = guarded(|| self.given().loader(&name, &folder).load(*written, *definition));
            self.announce(&name, loaded);
        }
        self.load_composites(late_composites);
        self.repository.write().started = true;
        Ok(())
    }

    /// What every model is loaded with.
    fn given(&self) -> graph::Given<'_> {
        let Self { repository, library, metrics, options, score, prefixes, .. } = self;
        graph::Given { repository, library, metrics, options, prefixes, score: *score }
    }

    fn announce(&self, name: &ModelName, loaded: Result<Model, LoadError>) {
        if self.repository.roster.is_closed() {
            // A model whose threads were stopped under it is not broken.
            return;
        }
        match loaded {
            Ok(model) => {
                give_back_memory();
                tracing::info!(model = %name, version = %model.version, "model ready");
                self.repository.set_status(name.clone(), ModelStatus::Ready(Arc::new(model)));
            }
            Err(error) => {
                tracing::error!(model = %name, %error, "model failed to load");
                self.repository.set_status(name.clone(), ModelStatus::Failed(error.to_string()));
            }
        }
    }

    fn read(&self, name: &ModelName, folder: &Path) -> Result<Read, LoadError> {
        read(&self.given().loader(name, folder))
    }
}

impl Drop for ModelLoader<'_> {
    fn drop(&mut self) {
        self.repository.orders.set_taken(false);
    }
}

impl fmt::Debug for ModelLoader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelLoader").field("models", &self.seen.len()).finish_non_exhaustive()
    }
}

/// A panic while one model is loaded keeps no other from being loaded.
fn guarded<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // What it left half done is dropped with it: nothing of a model is seen before it is announced.
    panic::catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(LoadError::Panicked))
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
    written.manifest.digests.check(loader.folder)?;
    match Definition::new(written.manifest.clone(), loader.folder, hub)? {
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
            Ok(Read::Graph { definition, written: Box::new(written), builds })
        }
        Definition::Composite(definition) => {
            let members = definition.members.into_iter().map(|member| member.model).collect();
            let Written { manifest, text, .. } = written;
            Ok(Read::Composite(Box::new(Candidate { folder: loader.folder.to_owned(), manifest, text, members })))
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
