//! Opens the graphs of one model, starts its workers and runs the first passes.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use karat_checkpoint::Checkpoint;
use karat_rules::domain::{ModelName, TokenizedInput};
use karat_runtime::{
    Executor, FileIdentity, RuntimeError,
    ort::{Graph, GraphFile, Library, Sessions, external_files},
    packed::PackedModel,
    prefix::PrefixCache,
};

use super::{
    LoadOptions,
    checkpoint::Opening,
    critic::{self, Writer},
    decoder::{self, Decoder},
    digest::Digest,
    packed::Packed,
    pixels,
    probes::{KNOWN_PROBE, give_back_weights, longest_probe, probes, warm_up},
    sessions::{Plan, Running, Started, beside_images},
    trial::{GraphTrial, Texts, check_vocabulary, enforce},
};
use crate::{
    image::ImagePipeline,
    input::{InputError, InputPipeline},
    manifest::{self, GraphDefinition, GraphSource, Written},
    repository::{
        GraphForm, GraphId, GraphModel, GraphUnit, LoadError, MachineUse, Model, ModelBody, Repository, Score,
        WrittenRules, expected,
    },
    schedule::{Policy, QueueLimits, Scheduler, trial::Company},
    telemetry::{EngineMetrics, ModelMetrics},
    text::{TextConfig, TextPipeline},
    workers::Stage,
};

/// How the files end in which trials are kept.
const TRIAL_ENDING: &str = "trial.calibration.json";
/// The same of graphs that take images, which may stand beside one that takes texts.
const IMAGE_TRIAL_ENDING: &str = "images.trial.calibration.json";
/// The input that takes the tokens of a graph that follows a contract.
const INPUT_IDS: &str = "input_ids";

/// What is needed to load any model.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) repository: &'a Repository,
    pub(super) library: &'a Library,
    pub(super) metrics: &'a EngineMetrics,
    pub(super) options: &'a LoadOptions,
    pub(super) prefixes: &'a PrefixCache,
    /// The files that several graphs have among their weights.
    pub(super) twins: &'a BTreeSet<FileIdentity>,
    /// Scores with a model that nobody else sees yet.
    pub(super) score: Score,
}

impl<'a> Given<'a> {
    /// What loads the model in a folder.
    pub(super) fn loader<'b>(&self, name: &'b ModelName, folder: &'b Path) -> Loader<'b>
    where
        'a: 'b,
    {
        Loader { given: *self, name, folder, predecessor: None }
    }
}

/// What is needed to load one model.
pub(super) struct Loader<'a> {
    pub(super) given: Given<'a>,
    pub(super) name: &'a ModelName,
    pub(super) folder: &'a Path,
    /// The version that it is to replace.
    predecessor: Option<&'a Model>,
}

/// What the graphs of one model share.
struct Parts<'a> {
    definition: &'a GraphDefinition,
    pipeline: &'a InputPipeline,
    /// What tells its passes from those of other models.
    passes: &'a str,
    probes: &'a [Arc<TokenizedInput>],
    texts: &'a Texts,
    metrics: &'a ModelMetrics,
}

impl<'a> Loader<'a> {
    /// The same for a model that is to replace another one.
    pub(super) fn replacing(self, predecessor: Option<&'a Model>) -> Self {
        Self { predecessor, ..self }
    }

    /// The graph that one with that index replaces, if it runs in the same way: then it suits the machine as that does, and
    /// measuring it would take cores from those who are served.
    fn replaced(&self, index: usize, graph: &Graph) -> Option<&GraphUnit> {
        let ModelBody::Graph(before) = &self.predecessor?.body else { return None };
        let unit = before.units.get(index)?;
        (unit.signature == *graph.signature() && unit.provider == graph.provider()).then_some(unit)
    }

    /// Loads and warms up a model that has graphs of its own.
    pub(super) fn load(&self, written: Written, mut definition: GraphDefinition) -> Result<Model, LoadError> {
        let Written { manifest, text, checkpoint } = written;
        let path = self.folder.join(manifest::FILE_NAME);
        let shape = definition.head.shape();
        definition.locate_tokenizer(self.folder);
        let mut digest = Digest::default();
        digest.manifest(&text, &manifest);
        let before = self.with_text_files(digest.clone(), &definition)?;
        let text = definition.text.as_ref().map(|text| {
            let pipeline = TextPipeline::load(self.folder, text)?.with_token_offsets(shape.tokens);
            Ok(pipeline.reading_response(shape.tokens || shape.steps))
        });
        let text = text.transpose().map_err(|source| LoadError::Text { path: path.clone(), source })?;
        let unreadable = |source: InputError| LoadError::Input { path: path.clone(), source };
        let image = definition.image.as_ref().map(|image| ImagePipeline::load(self.folder, image));
        let image = image.transpose().map_err(|source| unreadable(source.into()))?;
        // A definition has text or images.
        let pipeline = InputPipeline::new(text, image).ok_or(LoadError::Panicked)?;
        let mut digest = self.with_text_files(digest, &definition)?;
        if before.version() != digest.clone().version() {
            return Err(LoadError::Changed { path: self.folder.to_owned() });
        }
        let mut graphs = Vec::with_capacity(definition.graphs.len());
        let mut checkpoint = checkpoint;
        let mut images = Vec::new();
        for source in &definition.graphs {
            let (graph, beside) = self.open(&definition, source, checkpoint.take(), &mut digest)?;
            graphs.push(graph);
            images.extend(beside);
        }
        for file in &definition.images {
            images.push(self.open_file(&definition, file, &mut digest)?);
        }
        let passes = digest.passes();
        let version = digest.version();
        let metrics = self.given.metrics.model(self.name);
        let longest = longest_probe(&definition, &graphs).min(pipeline.max_tokens());
        let probes_up_to = |longest: usize| {
            probes(&pipeline, &*definition.head, longest).map_err(|error| match error {
                InputError::Text(source) => LoadError::Text { path: path.clone(), source },
                error => unreadable(error),
            })
        };
        let probes = probes_up_to(longest)?;
        // Every session computes them twice, and what kernels read doesn't depend on how long a text is.
        let brief = probes_up_to(longest.min(KNOWN_PROBE))?;
        let mut units = Vec::with_capacity(definition.graphs.len());
        let read = probes.iter().find(|probe| probe.pixels().is_none()).map(|probe| &**probe);
        let texts = pipeline.text().map(|text| Texts::new(text, &*definition.head, read)).unwrap_or_default();
        let parts = Parts {
            definition: &definition,
            pipeline: &pipeline,
            passes: &passes,
            probes: &probes,
            texts: &texts,
            metrics: &metrics,
        };
        let mut critic = None;
        let mut images = images.into_iter();
        // One after another, as each gives back what its sessions don't need any more.
        for (source, graph) in definition.graphs.iter().zip(graphs) {
            let mut running = self.start(&parts, source, &graph, self.replaced(units.len(), &graph))?;
            // Of several graphs, the first one writes.
            let critique = definition.critique.as_ref().filter(|_| critic.is_none()).zip(pipeline.text());
            let mut writer = match critique {
                Some(_) => Some(Writer::open(&definition, &graph, &running.form)?),
                None => None,
            };
            give_back_weights(&graph, &mut running, writer.as_mut().and_then(Writer::own), &brief);
            let mut unit = self.schedule(&parts, &graph, running)?;
            let images = images.next();
            if let Some(images) = &images {
                let running = self.start_pixels(&parts, source, images)?;
                unit.images = Some(Box::new(self.schedule(&parts, images, running)?));
            }
            warm_up(&unit, &probes).map_err(|(tokens, reason)| LoadError::WarmUp {
                path: path.clone(),
                tokens,
                shortest: probes.first().is_some_and(|probe| probe.len() == tokens),
                reason,
            })?;
            if let GraphForm::Prefixes(prefixes) = &unit.form {
                // Nobody will send what it was warmed up with.
                prefixes.forget();
            }
            if let Some(((critique, pipeline), writer)) = critique.zip(writer) {
                let (definition, pipeline, metrics, probe) = (&definition, &**pipeline, &metrics, probes.first());
                let (form, roster) = (&unit.form, &self.given.repository.roster);
                let parts = critic::Parts { definition, critique, pipeline, form, metrics, probe, roster };
                critic = Some(critic::start(&parts, writer)?);
            }
            units.push(unit);
        }
        let hub = definition.graphs.iter().flat_map(GraphSource::folders);
        let hub =
            hub.filter_map(|folder| self.given.options.hub.snapshot_in(folder)).map(|snapshot| snapshot.id).collect();
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
            hub,
            description: manifest.description,
            license: manifest.license,
            aggregate: definition.aggregate,
            transforms: definition.transforms,
            written: WrittenRules { aggregate: manifest.aggregate, transforms: manifest.transforms },
            references: None,
            body: ModelBody::Graph(Arc::new(graph)),
        };
        let references = expected::check(&model, self.folder, self.given.score)?;
        Ok(Model { references, ..model })
    }

    /// Adds the files of tokenizer, template and preprocessor.
    fn with_text_files(&self, mut digest: Digest, definition: &GraphDefinition) -> Result<Digest, LoadError> {
        let text = definition.text.iter().flat_map(TextConfig::files);
        for file in text.chain(definition.image.iter().map(|image| image.preprocessor.clone())) {
            digest.file(self.folder, &file)?;
        }
        Ok(digest)
    }

    /// Opens a graph, and the one for images that stands beside it in a checkpoint, and adds what its scores depend on.
    /// `checkpoint` is the one of the model's folder, where it was read already.
    fn open(
        &self,
        definition: &GraphDefinition,
        source: &GraphSource,
        checkpoint: Option<Checkpoint>,
        digest: &mut Digest,
    ) -> Result<(Graph, Option<Graph>), LoadError> {
        match source {
            GraphSource::File(file) => Ok((self.open_file(definition, file, digest)?, None)),
            GraphSource::Checkpoint(origin) => {
                for snapshot in origin.folders().filter_map(|folder| self.given.options.hub.snapshot_in(folder)) {
                    digest.text(&snapshot.id.to_string());
                }
                let checkpoint = checkpoint.map_or_else(|| Checkpoint::read(origin), Ok)?;
                let twins = self.given.twins;
                let opening = Opening { library: self.given.library, name: self.name, definition, twins };
                let (graph, read) = opening.open(origin.folder(), &checkpoint)?;
                digest.digest(&read);
                let images = opening.open_images(origin.folder(), &checkpoint)?;
                let images = images.map(|(images, read)| {
                    digest.digest(&read);
                    images
                });
                Ok((graph, images))
            }
        }
    }

    fn open_file(&self, definition: &GraphDefinition, file: &Path, digest: &mut Digest) -> Result<Graph, LoadError> {
        let runtime = |source| LoadError::Runtime { path: definition.manifest.clone(), source };
        digest.file(self.folder, file.strip_prefix(self.folder).unwrap_or(file))?;
        // Weights in files of their own decide scores as much as the graph does.
        let beside = file.parent().unwrap_or(self.folder);
        for weights in external_files(file).map_err(runtime)? {
            digest.file(beside, &weights)?;
        }
        let file = GraphFile { path: file, providers: &definition.providers };
        // What of it turns out to be an encoder may have several.
        let sessions = Sessions { alone: false, ..decoder::sessions(definition) };
        self.given.library.open(&file, sessions).map_err(runtime)
    }

    /// Starts a graph's sessions, in the way that it takes samples.
    fn start(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
        replaced: Option<&GraphUnit>,
    ) -> Result<Running, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        let runtime = |source: RuntimeError| LoadError::Runtime { path: definition.manifest.clone(), source };
        if let Some(model) = graph.packed_model() {
            return self.start_packed(parts, source, graph, model);
        }
        if graph.decoder_shape().is_some() {
            return self.start_decoder(parts, source, graph, replaced);
        }
        let Some(text) = pipeline.text() else { return self.start_pixels(parts, source, graph) };
        let binding = manifest::bind_graph(definition, graph.signature(), text.padding_id())?;
        check_vocabulary(graph, &binding.input_ids, parts.texts).map_err(runtime)?;
        let beside = pipeline.image().map(|_| beside_images(&definition.scheduling, graph));
        let plan = Plan {
            library: self.given.library,
            passes: parts.passes,
            written: beside.as_ref().unwrap_or(&definition.scheduling),
            probe: parts.probes.iter().find(|probe| probe.pixels().is_none()).map(|probe| &**probe),
            max_tokens: text.max_tokens(),
            file: source.beside("calibration.json"),
            time: self.given.options.calibration,
            replaced: replaced.and_then(|unit| unit.machine.settled()),
        };
        let Started { calibration, mut executors, awaits, largest: (samples, tokens) } =
            plan.start(graph, &binding).map_err(runtime)?;
        let file = source.beside(TRIAL_ENDING);
        let graph_trial = self.graph_trial(parts, graph, &file);
        let masks = binding.attention_mask.is_some();
        let conditions = graph_trial.conditions(masks, samples, tokens);
        let trial = match (graph_trial.recall(&conditions), executors.parallel.first_mut()) {
            (Some(known), _) => known,
            (None, Some(executor)) => {
                let alone = graph_trial.alone(&mut **executor, &conditions).map_err(runtime)?;
                graph_trial.compare(&alone, &mut **executor, &conditions).map_err(runtime)?
            }
            // There is one at least.
            (None, None) => return Err(runtime(RuntimeError::NoProvider)),
        };
        let shapes = executors.parallel.first().and_then(Executor::shapes);
        let policy = enforce(&trial, &mut executors, Policy { shapes, ..calibration.policy() });
        Ok(Running { policy, calibration, awaits, executors, form: GraphForm::Padded, trial })
    }

    /// What tries the graph, and keeps the verdict in `file`.
    fn graph_trial<'b>(&self, parts: &Parts<'b>, graph: &'b Graph, file: &'b Path) -> GraphTrial<'b> {
        GraphTrial {
            texts: parts.texts,
            graph,
            fingerprint: format!("{} {} {}", parts.passes, graph.provider(), self.given.library.build_info()),
            file,
            keeps: !self.given.options.calibration.is_zero(),
        }
    }

    /// A graph that takes images.
    fn start_pixels(&self, parts: &Parts<'_>, source: &GraphSource, graph: &Graph) -> Result<Running, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        // Only models that see get here.
        let image = pipeline.image().ok_or(LoadError::Panicked)?;
        let binding = manifest::bind_pixels(definition, graph.signature(), image.size(), image.scale().clone())?;
        let file = source.beside(IMAGE_TRIAL_ENDING);
        let images = Texts::of_images(image);
        let pixels = pixels::Pixels {
            written: &definition.scheduling,
            binding: &binding,
            probe: parts.probes.iter().find(|probe| probe.pixels().is_some()),
            time: self.given.options.calibration,
            graph_trial: GraphTrial { texts: &images, ..self.graph_trial(parts, graph, &file) },
        };
        pixels.start(graph).map_err(|source| LoadError::Runtime { path: definition.manifest.clone(), source })
    }

    /// A graph that follows the contract for sharing prefixes.
    fn start_decoder(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
        replaced: Option<&GraphUnit>,
    ) -> Result<Running, LoadError> {
        let Parts { definition, .. } = *parts;
        let context = graph.decoder_shape().map_or(0, |shape| shape.context);
        let runtime = |source: RuntimeError| LoadError::Runtime { path: definition.manifest.clone(), source };
        let outputs = manifest::bind_decoder(definition, graph.decoder_outputs(), context, &graph.decoder_needs())?;
        check_vocabulary(graph, INPUT_IDS, parts.texts).map_err(runtime)?;
        let file = source.beside(TRIAL_ENDING);
        let decoder = Decoder {
            library: self.given.library,
            passes: parts.passes,
            written: &definition.scheduling,
            head: &*definition.head,
            outputs,
            cache: self.given.prefixes,
            metrics: self.given.metrics.prefixes().model(self.name),
            token: parts.probes.first().map_or(0, |probe| probe.ids()[probe.len() / 2]),
            file: &source.beside("rows.calibration.json"),
            time: self.given.options.calibration,
            replaced: replaced.and_then(|unit| unit.form.row_cost()),
            graph_trial: self.graph_trial(parts, graph, &file),
        };
        decoder.start(graph).map_err(runtime)
    }

    /// A graph that follows the contract for packed rows.
    fn start_packed(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
        model: &PackedModel,
    ) -> Result<Running, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        let runtime = |source: RuntimeError| LoadError::Runtime { path: definition.manifest.clone(), source };
        let max_tokens = pipeline.max_tokens();
        let outputs = manifest::bind_decoder(definition, &model.outputs, model.context, &model.needs)?;
        check_vocabulary(graph, INPUT_IDS, parts.texts).map_err(runtime)?;
        let file = source.beside(TRIAL_ENDING);
        let packed = Packed {
            written: &definition.scheduling,
            head: &*definition.head,
            outputs,
            max_tokens,
            // Of several graphs, the first one writes; which that is doesn't matter to the others.
            writes: definition.critique.is_some(),
            metrics: self.given.metrics.prefixes().model(self.name),
            packed_metrics: self.given.metrics.prefixes().packed(self.name),
            graph_trial: self.graph_trial(parts, graph, &file),
        };
        packed.start(graph, model).map_err(runtime)
    }

    /// Puts a queue in front of a graph's sessions.
    fn schedule(&self, parts: &Parts<'_>, graph: &Graph, running: Running) -> Result<GraphUnit, LoadError> {
        let Running { executors, policy, calibration, awaits, form, trial } = running;
        if let (false, Some(reason)) = (trial.company == Company::Any, &trial.reason) {
            tracing::warn!(model = %self.name, company = ?trial.company, reason, "samples don't share passes freely");
        }
        let limits = QueueLimits {
            queued_tokens: self.given.options.queue_tokens,
            wait: self.given.options.queue_time,
            tokens_per_second: calibration.tokens_per_second,
        };
        let scheduler = Scheduler::start(executors, policy, limits, parts.metrics.clone())
            .map_err(|source| LoadError::Workers { path: parts.definition.manifest.clone(), source })?;
        // From here on, so that warming up ends with the server too.
        scheduler.enlist(&self.given.repository.roster, Stage::Loading);
        Ok(GraphUnit {
            id: GraphId::unique(),
            signature: graph.signature().clone(),
            provider: graph.provider(),
            weights: graph.weights(),
            skipped: graph.skipped().to_vec(),
            machine: MachineUse::new(calibration, awaits),
            trial: Some(trial),
            form,
            scheduler,
            images: None,
        })
    }
}
