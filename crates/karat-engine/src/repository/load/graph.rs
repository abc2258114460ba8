//! Opens the graphs of one model, starts its workers and runs the first passes.

use std::{path::Path, sync::Arc};

use karat_checkpoint::Checkpoint;
use karat_rules::{
    domain::{Cut, ModelName, ModelVersion, Sample, TokenizedInput},
    head::Head,
};
use karat_runtime::{
    RuntimeError,
    ort::{Graph, GraphFile, Library, external_files},
    packed::PackedModel,
    prefix::PrefixCache,
};

use super::{
    LoadOptions,
    checkpoint::Opening,
    critic,
    decoder::{self, Decoder},
    digest::Digest,
    packed::Packed,
    sessions::{Plan, Running},
};
use crate::{
    manifest::{self, GraphDefinition, GraphSource, Written},
    repository::{
        GraphForm, GraphId, GraphModel, GraphUnit, LoadError, Model, ModelBody, Repository, Score, WrittenRules,
        expected,
    },
    schedule::{Job, QueueLimits, Scheduler},
    telemetry::{EngineMetrics, ModelMetrics},
    text::{TextError, TextOptions, TextPipeline},
    workers::Stage,
};

/// How long a sample warms a graph up whose longest is known.
const KNOWN_PROBE: usize = 64;
/// The longest sample that a graph is tried with.
const LONGEST_PROBE: usize = 4096;

/// What is needed to load any model.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) repository: &'a Repository,
    pub(super) library: &'a Library,
    pub(super) metrics: &'a EngineMetrics,
    pub(super) options: &'a LoadOptions,
    pub(super) prefixes: &'a PrefixCache,
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
    pipeline: &'a TextPipeline,
    version: &'a ModelVersion,
    probes: &'a [Arc<TokenizedInput>],
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
        digest.text(&text);
        let before = self.with_text_files(digest.clone(), &definition)?;
        let pipeline = TextPipeline::load(self.folder, &definition.text)
            .map_err(|source| LoadError::Text { path: path.clone(), source })?
            .with_token_offsets(shape.tokens)
            .reading_response(shape.tokens || shape.steps);
        let mut digest = self.with_text_files(digest, &definition)?;
        if before.version() != digest.clone().version() {
            return Err(LoadError::Changed { path: self.folder.to_owned() });
        }
        let mut graphs = Vec::with_capacity(definition.graphs.len());
        let mut checkpoint = checkpoint;
        for source in &definition.graphs {
            graphs.push(self.open(&definition, source, checkpoint.take(), &mut digest)?);
        }
        let version = digest.version();
        let metrics = self.given.metrics.model(self.name);
        let longest = longest_probe(&definition, &graphs).min(pipeline.max_tokens());
        let probes = probes(&pipeline, &*definition.head, longest)
            .map_err(|source| LoadError::Text { path: path.clone(), source })?;
        let mut units = Vec::with_capacity(definition.graphs.len());
        let parts = Parts {
            definition: &definition,
            pipeline: &pipeline,
            version: &version,
            probes: &probes,
            metrics: &metrics,
        };
        let mut critic = None;
        // One after another, as each gives back what its sessions don't need any more.
        for (source, graph) in definition.graphs.iter().zip(graphs) {
            let unit = self.unit(&parts, source, &graph, self.replaced(units.len(), &graph))?;
            warm_up(&unit.scheduler, &probes).map_err(|(tokens, reason)| LoadError::WarmUp {
                path: path.clone(),
                tokens,
                reason,
            })?;
            if let GraphForm::Prefixes(prefixes) = &unit.form {
                // Nobody will send what it was warmed up with.
                prefixes.forget();
            }
            // Of several graphs, the first one writes.
            if let (None, Some(critique)) = (&critic, &definition.critique) {
                let (definition, pipeline, metrics, probe) = (&definition, &pipeline, &metrics, probes.first());
                let (graph, form, roster) = (&graph, &unit.form, &self.given.repository.roster);
                let parts = critic::Parts { definition, critique, pipeline, graph, form, metrics, probe, roster };
                critic = Some(critic::start(&parts)?);
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

    /// Adds the files of tokenizer and template.
    fn with_text_files(&self, mut digest: Digest, definition: &GraphDefinition) -> Result<Digest, LoadError> {
        for file in definition.text.files() {
            digest.file(self.folder, &file)?;
        }
        Ok(digest)
    }

    /// Opens a graph and adds what its scores depend on. `checkpoint` is the one of the model's folder, where it was read
    /// already.
    fn open(
        &self,
        definition: &GraphDefinition,
        source: &GraphSource,
        checkpoint: Option<Checkpoint>,
        digest: &mut Digest,
    ) -> Result<Graph, LoadError> {
        let runtime = |source| LoadError::Runtime { path: definition.manifest.clone(), source };
        let sessions = decoder::sessions(definition);
        match source {
            GraphSource::File(file) => {
                digest.file(self.folder, file.strip_prefix(self.folder).unwrap_or(file))?;
                // Weights in files of their own decide scores as much as the graph does.
                let beside = file.parent().unwrap_or(self.folder);
                for weights in external_files(file).map_err(runtime)? {
                    digest.file(beside, &weights)?;
                }
                let file = GraphFile { path: file, providers: &definition.providers };
                self.given.library.open(&file, sessions).map_err(runtime)
            }
            GraphSource::Checkpoint(origin) => {
                for snapshot in origin.folders().filter_map(|folder| self.given.options.hub.snapshot_in(folder)) {
                    digest.text(&snapshot.id.to_string());
                }
                let checkpoint = checkpoint.map_or_else(|| Checkpoint::read(origin), Ok)?;
                let opening = Opening { library: self.given.library, name: self.name, definition, sessions };
                let (graph, read) = opening.open(origin.folder(), &checkpoint)?;
                digest.digest(&read);
                Ok(graph)
            }
        }
    }

    fn unit(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
        replaced: Option<&GraphUnit>,
    ) -> Result<GraphUnit, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        let runtime = |source: RuntimeError| LoadError::Runtime { path: definition.manifest.clone(), source };
        if let Some(model) = graph.packed_model() {
            return self.packed_unit(parts, graph, model);
        }
        if graph.decoder_shape().is_some() {
            return self.decoder_unit(parts, source, graph, replaced);
        }
        let binding = manifest::bind_graph(definition, graph.signature(), pipeline.padding_id())?;
        let plan = Plan {
            library: self.given.library,
            version: parts.version,
            written: &parts.definition.scheduling,
            probe: parts.probes.first().map(|probe| &**probe),
            max_tokens: parts.pipeline.max_tokens(),
            file: source.beside("calibration.json"),
            time: self.given.options.calibration,
            replaced: replaced.and_then(|unit| unit.calibration),
        };
        let (calibration, executors) = plan.start(graph, &binding).map_err(runtime)?;
        self.schedule(
            parts,
            graph,
            Running { policy: calibration.policy(), calibration, executors, form: GraphForm::Padded },
        )
    }

    /// A graph that follows the contract for sharing prefixes.
    fn decoder_unit(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
        replaced: Option<&GraphUnit>,
    ) -> Result<GraphUnit, LoadError> {
        let Parts { definition, .. } = *parts;
        let context = graph.decoder_shape().map_or(0, |shape| shape.context);
        let outputs = manifest::bind_decoder(definition, graph.decoder_outputs(), context, &graph.decoder_needs())?;
        let decoder = Decoder {
            library: self.given.library,
            version: parts.version,
            written: &definition.scheduling,
            head: &*definition.head,
            outputs,
            cache: self.given.prefixes,
            metrics: self.given.metrics.prefixes().model(self.name),
            token: parts.probes.first().map_or(0, |probe| probe.ids()[probe.len() / 2]),
            file: &source.beside("rows.calibration.json"),
            time: self.given.options.calibration,
            replaced: replaced.and_then(|unit| unit.form.row_cost()),
        };
        let running =
            decoder.start(graph).map_err(|source| LoadError::Runtime { path: definition.manifest.clone(), source })?;
        self.schedule(parts, graph, running)
    }

    /// A graph that follows the contract for packed rows.
    fn packed_unit(&self, parts: &Parts<'_>, graph: &Graph, model: &PackedModel) -> Result<GraphUnit, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        let max_tokens = pipeline.max_tokens();
        let outputs = manifest::bind_decoder(definition, &model.outputs, model.context, &model.needs)?;
        let packed = Packed {
            written: &definition.scheduling,
            head: &*definition.head,
            outputs,
            max_tokens,
            // Of several graphs, the first one writes; which that is doesn't matter to the others.
            writes: definition.critique.is_some(),
            metrics: self.given.metrics.prefixes().model(self.name),
        };
        let running = packed
            .start(graph, model)
            .map_err(|source| LoadError::Runtime { path: definition.manifest.clone(), source })?;
        self.schedule(parts, graph, running)
    }

    /// Puts a queue in front of a graph's sessions.
    fn schedule(&self, parts: &Parts<'_>, graph: &Graph, running: Running) -> Result<GraphUnit, LoadError> {
        let Running { executors, policy, calibration, form } = running;
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
            skipped: graph.skipped().to_vec(),
            batch_dependent: !graph.is_batch_invariant(),
            calibration: Some(calibration),
            form,
            scheduler,
        })
    }
}

/// How long a sample graphs are tried with. What is known of a graph needs no trial: a decoder says how many tokens it
/// takes, and of a checkpoint it is counted. A file is tried up to a length whose pass doesn't take minutes.
fn longest_probe(definition: &GraphDefinition, graphs: &[Graph]) -> usize {
    let is_known = |(source, graph): (&GraphSource, &Graph)| {
        graph.decoder_shape().is_some() || matches!(source, GraphSource::Checkpoint(_))
    };
    if definition.graphs.iter().zip(graphs).all(is_known) { KNOWN_PROBE } else { LONGEST_PROBE }
}

/// A short sample, and one of `longest` tokens: the first shows that the graph runs, the second that it takes what the
/// manifest promises.
///
/// # Errors
/// When the head asks about texts that the model can't read, such as answers of several tokens.
fn probes(pipeline: &TextPipeline, head: &dyn Head, longest: usize) -> Result<Vec<Arc<TokenizedInput>>, TextError> {
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
    let mut plain = None;
    for sample in [text, turn].into_iter().flatten().filter(|_| asked.is_empty()) {
        match pipeline.tokenize(&sample, None) {
            Ok(found) => plain = plain.or(Some(found)),
            // Whatever a client sends, its template writes the mark or doesn't.
            Err(error @ TextError::NoGate { .. }) if matches!(sample, Sample::Conversation(_)) => return Err(error),
            Err(_) => {}
        }
    }
    let Some(mut short) = asked.into_iter().next().or(plain) else { return Ok(Vec::new()) };
    if head.gives_steps() && short.steps().is_empty() {
        short = at_its_end(short);
    }
    let ids: Vec<u32> = short.ids().iter().copied().cycle().take(longest.max(short.len())).collect();
    let type_ids = vec![0; ids.len()];
    let response = 0..ids.len();
    let long = TokenizedInput::new(ids, type_ids, response, Cut::default());
    let long = long.and_then(|long| long.with_reading(short.reading().clone()));
    let long = long.and_then(|long| match short.gate() {
        Some(gate) => long.with_gate(gate),
        None => Some(long),
    });
    let long = long.map(|long| if head.gives_steps() { at_its_end(long) } else { long });
    Ok([Some(short), long].into_iter().flatten().map(Arc::new).collect())
}

/// An input that is one step, which is read at its last token.
fn at_its_end(input: TokenizedInput) -> TokenizedInput {
    let last = input.len() - 1;
    // The last token lies within the tokens.
    input.clone().with_steps(vec![last]).unwrap_or(input)
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
