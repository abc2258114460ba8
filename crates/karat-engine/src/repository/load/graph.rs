//! Opens the graphs of one model, starts its workers and runs the first passes.

use std::{path::Path, sync::Arc};

use karat_rules::{
    domain::{Cut, ModelName, ModelVersion, Sample, TokenizedInput},
    head::Head,
};
use karat_runtime::{
    RuntimeError,
    ort::{Graph, GraphFile, Library, external_files},
    prefix::PrefixCache,
};

use super::{
    LoadOptions, checkpoint, critic,
    decoder::Decoder,
    digest::Digest,
    sessions::{Plan, Running},
};
use crate::{
    manifest::{self, GraphDefinition, GraphSource, Manifest},
    repository::{
        GraphId, GraphModel, GraphUnit, LoadError, Model, ModelBody, Repository, Score, WrittenRules, expected,
    },
    schedule::{Job, QueueLimits, Scheduler},
    telemetry::{EngineMetrics, ModelMetrics},
    text::{TextError, TextOptions, TextPipeline},
    workers::Stage,
};

/// What is needed to load one model.
pub(super) struct Loader<'a> {
    pub(super) repository: &'a Repository,
    pub(super) library: &'a Library,
    pub(super) metrics: &'a EngineMetrics,
    pub(super) options: &'a LoadOptions,
    pub(super) prefixes: &'a PrefixCache,
    pub(super) name: &'a ModelName,
    pub(super) folder: &'a Path,
    pub(super) score: Score,
}

/// What the graphs of one model share.
struct Parts<'a> {
    definition: &'a GraphDefinition,
    pipeline: &'a TextPipeline,
    version: &'a ModelVersion,
    probes: &'a [Arc<TokenizedInput>],
    metrics: &'a ModelMetrics,
}

impl Loader<'_> {
    /// Loads and warms up a model that has graphs of its own.
    pub(super) fn load(&self, manifest: Manifest, definition: GraphDefinition) -> Result<Model, LoadError> {
        let path = self.folder.join(manifest::FILE_NAME);
        let shape = definition.head.shape();
        let pipeline = TextPipeline::load(self.folder, &definition.text)
            .map_err(|source| LoadError::Text { path: path.clone(), source })?
            .with_token_offsets(shape.tokens)
            .reading_response(shape.tokens || shape.steps);
        let version = self.version(&definition)?;
        let metrics = self.metrics.model(self.name);
        let probes =
            probes(&pipeline, &*definition.head).map_err(|source| LoadError::Text { path: path.clone(), source })?;
        let mut units = Vec::with_capacity(definition.graphs.len());
        let parts = Parts {
            definition: &definition,
            pipeline: &pipeline,
            version: &version,
            probes: &probes,
            metrics: &metrics,
        };
        let mut critic = None;
        for source in &definition.graphs {
            let graph = self.open(&definition, source)?;
            let unit = self.unit(&parts, source, &graph)?;
            warm_up(&unit.scheduler, &probes).map_err(|(tokens, reason)| LoadError::WarmUp {
                path: path.clone(),
                tokens,
                reason,
            })?;
            if let Some(prefixes) = &unit.prefixes {
                // Nobody will send what it was warmed up with.
                prefixes.forget();
            }
            units.push(unit);
            // Of several graphs, the first one writes.
            if let (None, Some(critique)) = (&critic, &definition.critique) {
                let (definition, pipeline, metrics, probe) = (&definition, &pipeline, &metrics, probes.first());
                let roster = &self.repository.roster;
                let parts = critic::Parts { definition, critique, pipeline, graph: &graph, metrics, probe, roster };
                critic = Some(critic::start(&parts)?);
            }
        }
        let graph = GraphModel {
            name: self.name.clone(),
            metrics,
            pipeline: Arc::new(pipeline),
            head: definition.head,
            units,
            critic,
        };
        let model = Model {
            name: self.name.clone(),
            version,
            description: manifest.description,
            license: manifest.license,
            aggregate: definition.aggregate,
            transforms: definition.transforms,
            written: WrittenRules { aggregate: manifest.aggregate, transforms: manifest.transforms },
            references: None,
            body: ModelBody::Graph(Arc::new(graph)),
        };
        let references = expected::check(&model, self.folder, self.score)?;
        Ok(Model { references, ..model })
    }

    fn version(&self, definition: &GraphDefinition) -> Result<ModelVersion, LoadError> {
        let mut digest = Digest::default();
        digest.file(self.folder, Path::new(manifest::FILE_NAME))?;
        for file in definition.text.files() {
            digest.file(self.folder, &file)?;
        }
        for source in &definition.graphs {
            let file = match source {
                GraphSource::File(file) => file,
                GraphSource::Checkpoint(folder) => {
                    checkpoint::digest(folder, &mut digest)?;
                    continue;
                }
            };
            let name = file.strip_prefix(self.folder).unwrap_or(file);
            digest.file(self.folder, name)?;
            // Weights in files of their own decide scores as much as the graph does.
            let beside = file.parent().unwrap_or(self.folder);
            let runtime = |source| LoadError::Runtime { path: definition.manifest.clone(), source };
            for weights in external_files(file).map_err(runtime)? {
                digest.file(beside, &weights)?;
            }
        }
        Ok(digest.version())
    }

    fn open(&self, definition: &GraphDefinition, source: &GraphSource) -> Result<Graph, LoadError> {
        let opened = match source {
            GraphSource::File(path) => self.library.open(&GraphFile { path, providers: &definition.providers }),
            GraphSource::Checkpoint(folder) => {
                let built = checkpoint::build(self.name, folder)?;
                self.library.open_built(built, &definition.providers)
            }
        };
        opened.map_err(|source| LoadError::Runtime { path: definition.manifest.clone(), source })
    }

    fn unit(&self, parts: &Parts<'_>, source: &GraphSource, graph: &Graph) -> Result<GraphUnit, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        let runtime = |source: RuntimeError| LoadError::Runtime { path: definition.manifest.clone(), source };
        if let Some(shape) = graph.decoder_shape() {
            return self.decoder_unit(parts, source, graph, shape.context);
        }
        let binding = manifest::bind_graph(definition, graph.signature(), pipeline.padding_id())?;
        let plan = Plan {
            library: self.library,
            version: parts.version,
            written: &parts.definition.scheduling,
            probe: parts.probes.first().map(|probe| &**probe),
            max_tokens: parts.pipeline.max_tokens(),
            file: source.beside("calibration.json"),
            time: self.options.calibration,
        };
        let (calibration, executors) = plan.start(graph, &binding).map_err(runtime)?;
        self.schedule(parts, graph, Running { policy: calibration.policy(), calibration, executors, prefixes: None })
    }

    /// A graph that follows the contract for sharing prefixes.
    fn decoder_unit(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
        context: usize,
    ) -> Result<GraphUnit, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        let outputs = manifest::bind_decoder(definition, graph.decoder_outputs(), context, pipeline.max_tokens())?;
        let decoder = Decoder {
            library: self.library,
            version: parts.version,
            written: &definition.scheduling,
            head: &*definition.head,
            outputs,
            cache: self.prefixes,
            metrics: self.metrics.prefixes().model(self.name),
            token: parts.probes.first().map_or(0, |probe| probe.ids()[probe.len() / 2]),
            file: &source.beside("rows.calibration.json"),
            time: self.options.calibration,
        };
        let running =
            decoder.start(graph).map_err(|source| LoadError::Runtime { path: definition.manifest.clone(), source })?;
        self.schedule(parts, graph, running)
    }

    /// Puts a queue in front of a graph's sessions.
    fn schedule(&self, parts: &Parts<'_>, graph: &Graph, running: Running) -> Result<GraphUnit, LoadError> {
        let Running { executors, policy, calibration, prefixes } = running;
        let limits = QueueLimits {
            queued_tokens: self.options.queue_tokens,
            tokens_per_second: calibration.tokens_per_second,
            ..QueueLimits::default()
        };
        let scheduler = Scheduler::start(executors, policy, limits, parts.metrics.clone())
            .map_err(|source| LoadError::Workers { path: parts.definition.manifest.clone(), source })?;
        // From here on, so that warming up ends with the server too.
        scheduler.enlist(&self.repository.roster, Stage::Loading);
        Ok(GraphUnit {
            id: GraphId::unique(),
            signature: graph.signature().clone(),
            provider: graph.provider(),
            skipped: graph.skipped().to_vec(),
            batch_dependent: !graph.is_batch_invariant(),
            calibration: Some(calibration),
            prefixes,
            scheduler,
        })
    }
}

/// A sample as short, and one as long, as the model takes: the first shows that the graph runs, the second that it
/// takes what the manifest promises.
///
/// # Errors
/// When the head asks about texts that the model can't read, such as answers of several tokens.
fn probes(pipeline: &TextPipeline, head: &dyn Head) -> Result<Vec<Arc<TokenizedInput>>, TextError> {
    let mut asked = Vec::new();
    if let Some(probing) = head.probing() {
        // The example has the shape that the head takes.
        for probe in probing.probes(&probing.example()).unwrap_or_default() {
            asked.push(pipeline.tokenize_probe(&probe, TextOptions::default())?.input);
        }
    }
    // A model that takes text out of a policy's template refuses plain text, but no conversation.
    let text = Sample::from_text("warm up".to_owned());
    let turn = Sample::from_prompt(String::new(), "warm up".to_owned());
    let plain = || [text, turn].into_iter().flatten().find_map(|sample| pipeline.tokenize(&sample, None).ok());
    let Some(short) = asked.into_iter().next().or_else(plain) else { return Ok(Vec::new()) };
    let ids: Vec<u32> = short.ids().iter().copied().cycle().take(pipeline.max_tokens()).collect();
    let type_ids = vec![0; ids.len()];
    let response = 0..ids.len();
    let long = TokenizedInput::new(ids, type_ids, response, Cut::default());
    let long = long.and_then(|long| long.with_reading(short.reading().clone()));
    Ok([Some(short), long].into_iter().flatten().map(Arc::new).collect())
}

/// Runs each probe once; an error comes with the length of the sample that failed.
fn warm_up(scheduler: &Scheduler, probes: &[Arc<TokenizedInput>]) -> Result<(), (usize, String)> {
    for probe in probes {
        let failed = |reason: &dyn std::fmt::Display| (probe.len(), reason.to_string());
        let tickets = scheduler.submit(vec![Job::new(Arc::clone(probe))]).map_err(|refusal| failed(&refusal))?;
        for ticket in tickets {
            futures_executor::block_on(ticket).map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}
