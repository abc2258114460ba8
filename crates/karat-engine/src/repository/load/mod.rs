//! Loads a folder of models: reads manifests, opens graphs, warms up, and tells versions apart; and later, while the server
//! runs, loads what is asked for or what changed.
//!
//! One broken model doesn't stop the others: it is listed as failed, with its reason.

mod abreast;
mod checkpoint;
mod composite;
mod critic;
mod decoder;
mod digest;
mod graph;
mod known;
mod open;
mod packed;
mod pixels;
mod probes;
mod replace;
mod sessions;
mod sources;
mod start;
mod trial;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use karat_hub::Hub;
use karat_rules::domain::ModelName;
use karat_runtime::{
    FileIdentity, give_back_memory,
    ort::{GraphFile, Library},
    prefix::PrefixCache,
};

use super::{GraphUnit, LoadError, Model, ModelBody, ModelSource, ModelStatus, Repository, Score};
use crate::{
    manifest::{Definition, GraphDefinition, GraphSource, Written},
    telemetry::EngineMetrics,
    text::SharedTokenizers,
};
use abreast::Room;
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
    tokenizers: SharedTokenizers,
    /// Every composite that could be read, to be put together anew when a member changes.
    composites: BTreeMap<ModelName, Candidate>,
    /// The files of every model, as they were when it was loaded.
    seen: BTreeMap<ModelName, Seen>,
    /// The files that several graphs have among their weights.
    twins: BTreeSet<FileIdentity>,
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
        let tokenizers = SharedTokenizers::default();
        let (composites, seen, twins) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { repository, library, metrics, options, score, prefixes, tokenizers, composites, seen, twins }
    }

    /// Loads every model, several side by side as far as cores and memory allow, graphs before composites. Models whose
    /// engines TensorRT has to build come last, with the composites that need them: they take minutes, and nobody waits
    /// for them. Models beside which their reference's scores lie (`expected.json`) are held to these. Blocks, and breaks
    /// off where the repository is told to end meanwhile.
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
        let mut late = Late::default();
        // What may have to be fetched keeps nobody else from being served.
        for group in sources.chunk_by(|one, other| one.is_remote() == other.is_remote()) {
            self.load_side_by_side(group, &mut late);
        }
        let Late { composites, builds } = late;
        if self.repository.roster.is_closed() {
            return Ok(());
        }
        let late = composite::awaiting(&self.composites, builds.keys().cloned().collect());
        for name in &late {
            tracing::info!(model = %name, "model waits for engines that TensorRT builds");
            self.repository.set_status(name.clone(), ModelStatus::Building(Instant::now()));
        }
        let (late_composites, composites) = composites.into_iter().partition(|name| late.contains(name));
        self.load_composites(composites);
        for (name, graph) in builds {
            self.load_graph(&name, graph);
        }
        if self.repository.roster.is_closed() {
            return Ok(());
        }
        self.load_composites(late_composites);
        self.repository.write().started = true;
        Ok(())
    }

    /// Reads what models define, and loads those that have graphs of their own; what has to wait is left.
    fn load_side_by_side(&mut self, sources: &[ModelSource], late: &mut Late) {
        let found = abreast::each(sources.iter().collect(), sessions::cores(), |source| self.find(source));
        let mut graphs = Vec::new();
        for (source, found) in sources.iter().zip(found) {
            let name = source.name();
            let Some(Found { seen, read }) = found else { continue };
            let bytes = seen.bytes();
            self.seen.insert(name.clone(), seen);
            match read {
                Some(Read::Composite(candidate)) => {
                    self.composites.insert(name.clone(), *candidate);
                    late.composites.push(name.clone());
                }
                Some(Read::Graph(graph)) if graph.builds => drop(late.builds.insert(name.clone(), graph)),
                Some(Read::Graph(graph)) => graphs.push((name, graph, bytes)),
                None => {}
            }
        }
        self.twins.extend(sources::twins(graphs.iter().map(|(_, graph, _)| &*graph.definition)));
        // The largest first, lest the others are waited for before it begins.
        graphs.sort_by_key(|(_, _, bytes)| Reverse(*bytes));
        let room = Room::new();
        // One more than there are cores: what is loaded last would leave all but one of them idle.
        abreast::each(graphs, sessions::cores().saturating_add(1), |(name, graph, bytes)| {
            let _place = room.enter(bytes);
            self.load_graph(name, graph);
        });
    }

    /// Reads what a model's folder defines; where that fails, it is told.
    fn find(&self, source: &ModelSource) -> Option<Found> {
        if self.repository.roster.is_closed() {
            return None;
        }
        let name = source.name();
        let folder = match source.locate(&self.options.hub) {
            Ok(folder) => folder,
            Err(error) => {
                self.announce(name, Err(Box::new(error).into()));
                return None;
            }
        };
        let seen = Seen::of(&folder);
        let read = match guarded(|| self.read(name, &folder)) {
            Ok(read) => Some(read),
            Err(error) => {
                self.announce(name, Err(error));
                None
            }
        };
        Some(Found { seen, read })
    }

    fn load_graph(&self, name: &ModelName, graph: ReadGraph) {
        if self.repository.roster.is_closed() {
            return;
        }
        let ReadGraph { folder, definition, written, .. } = graph;
        let loaded = guarded(|| self.given().loader(name, &folder).load(*written, *definition));
        self.announce(name, loaded);
    }

    /// Measures what is to be measured of the models that serve, of each while nothing waits for it.
    pub(super) fn calibrate(&self) {
        for (name, listed) in self.repository.models() {
            let ModelStatus::Ready(model) = listed.status else { continue };
            let ModelBody::Graph(graph) = &model.body else { continue };
            for unit in graph.units.iter().flat_map(GraphUnit::sides) {
                if self.repository.roster.is_closed() {
                    return;
                }
                match unit.calibrate() {
                    Ok(None) => {}
                    Ok(Some(chosen)) => {
                        // Sessions that were left out are gone.
                        give_back_memory();
                        tracing::info!(model = %name, ?chosen, "graph measured");
                    }
                    Err(error) => tracing::warn!(model = %name, %error, "a graph can't be measured"),
                }
            }
        }
    }

    /// What every model is loaded with.
    fn given(&self) -> graph::Given<'_> {
        let Self { repository, library, metrics, options, score, prefixes, tokenizers, twins, .. } = self;
        graph::Given { repository, library, metrics, options, prefixes, tokenizers, twins, score: *score }
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

/// What is loaded after everything else.
#[derive(Default)]
struct Late {
    composites: Vec<ModelName>,
    /// Models whose engines TensorRT has to build.
    builds: BTreeMap<ModelName, ReadGraph>,
}

/// What was found of a model.
struct Found {
    /// Its files.
    seen: Seen,
    /// What they define; none where that can't be read.
    read: Option<Read>,
}

/// What a folder defines.
enum Read {
    Graph(ReadGraph),
    Composite(Box<Candidate>),
}

/// A model with graphs of its own, before any of them is opened.
struct ReadGraph {
    folder: PathBuf,
    definition: Box<GraphDefinition>,
    written: Box<Written>,
    /// Whether TensorRT has to build engines first.
    builds: bool,
}

fn read(loader: &graph::Loader<'_>) -> Result<Read, LoadError> {
    let hub = &loader.given.options.hub;
    let written = Written::read(loader.folder, hub)?;
    written.manifest.digests.check(loader.folder)?;
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
            let folder = loader.folder.to_owned();
            Ok(Read::Graph(ReadGraph { folder, definition, written: Box::new(written), builds }))
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
