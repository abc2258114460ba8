//! Starts the sessions of a graph in the way that it takes samples, and puts a queue in front of them.

use std::{env::consts::ARCH, path::Path};

use karat_runtime::{Executor, ProviderKind, RuntimeError, ort::Graph, packed::PackedModel};

use super::{
    decoder::Decoder,
    graph::Loader,
    known::FirstPasses,
    packed::Packed,
    pixels,
    probes::Probes,
    sessions::{Plan, Running, Started, beside_images, cores},
    trial::{GraphTrial, Texts, check_vocabulary, enforce},
};
use crate::{
    input::InputPipeline,
    manifest::{self, GraphDefinition, GraphSource},
    repository::{GraphForm, GraphId, GraphUnit, LoadError, MachineUse},
    schedule::{Policy, QueueLimits, Scheduler, trial::Company},
    telemetry::ModelMetrics,
    workers::Stage,
};

/// How the files end in which trials are kept.
const TRIAL_ENDING: &str = "trial.calibration.json";
/// The same of graphs that take images, which may stand beside one that takes texts.
const IMAGE_TRIAL_ENDING: &str = "images.trial.calibration.json";
/// The same of what is known of first passes.
const PASSES_ENDING: &str = "passes.calibration.json";
/// The input that takes the tokens of a graph that follows a contract.
const INPUT_IDS: &str = "input_ids";

/// What the graphs of one model share.
pub(super) struct Parts<'a> {
    pub(super) definition: &'a GraphDefinition,
    pub(super) pipeline: &'a InputPipeline,
    /// What tells its passes from those of other models.
    pub(super) passes: &'a str,
    pub(super) probes: &'a Probes,
    pub(super) texts: &'a Texts,
    pub(super) metrics: &'a ModelMetrics,
}

impl Loader<'_> {
    /// Starts a graph's sessions, in the way that it takes samples.
    pub(super) fn start(
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
            probe: parts.probes.text(),
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

    /// What an earlier start may have kept of the graph's first passes.
    pub(super) fn first_passes(&self, parts: &Parts<'_>, source: &GraphSource, graph: &Graph) -> FirstPasses {
        FirstPasses {
            fingerprint: format!("{} {ARCH} {}", self.fingerprint(parts, graph), cores()),
            file: source.beside(PASSES_ENDING),
            // A device plans what it computes with for the longest sample that it has seen.
            keeps: !self.given.options.calibration.is_zero() && graph.provider() == ProviderKind::Cpu,
        }
    }

    /// What everything depends on that is found out about a graph by its passes.
    fn fingerprint(&self, parts: &Parts<'_>, graph: &Graph) -> String {
        format!("{} {} {}", parts.passes, graph.provider(), self.given.library.build_info())
    }

    /// What tries the graph, and keeps the verdict in `file`.
    fn graph_trial<'b>(&self, parts: &Parts<'b>, graph: &'b Graph, file: &'b Path) -> GraphTrial<'b> {
        GraphTrial {
            texts: parts.texts,
            graph,
            fingerprint: self.fingerprint(parts, graph),
            file,
            keeps: !self.given.options.calibration.is_zero(),
        }
    }

    /// A graph that takes images.
    pub(super) fn start_pixels(
        &self,
        parts: &Parts<'_>,
        source: &GraphSource,
        graph: &Graph,
    ) -> Result<Running, LoadError> {
        let Parts { definition, pipeline, .. } = *parts;
        // Only models that see get here.
        let image = pipeline.image().ok_or(LoadError::Panicked)?;
        let binding = manifest::bind_pixels(definition, graph.signature(), image.size(), image.scale().clone())?;
        let file = source.beside(IMAGE_TRIAL_ENDING);
        let images = Texts::of_images(image);
        let pixels = pixels::Pixels {
            written: &definition.scheduling,
            binding: &binding,
            probe: parts.probes.image(),
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
            token: parts.probes.text().map_or(0, |probe| probe.ids()[probe.len() / 2]),
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
    pub(super) fn schedule(&self, parts: &Parts<'_>, graph: &Graph, running: Running) -> Result<GraphUnit, LoadError> {
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
