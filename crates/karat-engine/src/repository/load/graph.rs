//! Loads one model that has graphs of its own: what it reads, then graph by graph sessions, first passes and a queue.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use karat_rules::domain::ModelName;
use karat_runtime::{
    FileIdentity,
    ort::{Graph, Library},
    prefix::PrefixCache,
};

use super::{
    LoadOptions,
    critic::{self, Writer},
    digest::Digest,
    open::Opened,
    probes::{self, Probes, give_back_weights, warm_up},
    start::Parts,
    trial::Texts,
};
use crate::{
    image::ImagePipeline,
    input::{InputError, InputPipeline},
    manifest::{self, GraphDefinition, GraphSource, Written},
    repository::{
        Critic, GraphForm, GraphModel, GraphUnit, LoadError, Model, ModelBody, Repository, Score, WrittenRules,
        expected,
    },
    telemetry::EngineMetrics,
    text::{SharedTokenizers, TextPipeline},
};

/// What is needed to load any model.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) repository: &'a Repository,
    pub(super) library: &'a Library,
    pub(super) metrics: &'a EngineMetrics,
    pub(super) options: &'a LoadOptions,
    pub(super) prefixes: &'a PrefixCache,
    /// The tokenizers of all models.
    pub(super) tokenizers: &'a SharedTokenizers,
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

/// One of a model's graphs, opened.
struct Side<'a> {
    source: &'a GraphSource,
    graph: &'a Graph,
    /// The one that takes images, where this one takes the texts that they are compared with.
    images: Option<Graph>,
    /// Whether it is to write, where the model does.
    writes: bool,
}

/// What is needed to load one model.
pub(super) struct Loader<'a> {
    pub(super) given: Given<'a>,
    pub(super) name: &'a ModelName,
    pub(super) folder: &'a Path,
    /// The version that it is to replace.
    predecessor: Option<&'a Model>,
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
        definition.locate_tokenizer(self.folder);
        let mut digest = Digest::default();
        digest.manifest(&text, &manifest);
        let pipeline = self.read_inputs(&definition, &mut digest)?;
        let tokens = probes::read_tokens(&pipeline, &definition);
        let Opened { graphs, images } = self.open_all(&definition, &tokens, checkpoint, &mut digest)?;
        let passes = digest.passes();
        let version = digest.version();
        let metrics = self.given.metrics.model(self.name);
        let longest = probes::longest(&definition, &graphs).min(pipeline.max_tokens());
        let probes = Probes::new(&pipeline, &*definition.head, longest).map_err(|error| self.unreadable(error))?;
        let texts = pipeline.text().map(|text| Texts::new(text, &*definition.head, probes.text()));
        let parts = Parts {
            definition: &definition,
            pipeline: &pipeline,
            passes: &passes,
            probes: &probes,
            texts: &texts.unwrap_or_default(),
            metrics: &metrics,
        };
        let mut units = Vec::with_capacity(definition.graphs.len());
        let mut critic = None;
        let mut images = images.into_iter();
        // One after another, as each gives back what its sessions don't need any more.
        for (source, graph) in definition.graphs.iter().zip(graphs) {
            // Of several graphs, the first one writes.
            let side = Side { source, graph: &graph, images: images.next(), writes: critic.is_none() };
            let (unit, writes) = self.start_unit(&parts, units.len(), side)?;
            critic = critic.or(writes);
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

    /// Reads tokenizer, template and what images are prepared by, and adds them to the digest.
    fn read_inputs(&self, definition: &GraphDefinition, digest: &mut Digest) -> Result<InputPipeline, LoadError> {
        let shape = definition.head.shape();
        let before = self.with_text_files(digest.clone(), definition)?;
        let text = definition.text.as_ref().map(|text| {
            let pipeline = TextPipeline::load_sharing(self.folder, text, self.given.tokenizers)?;
            let pipeline = pipeline.with_token_offsets(shape.tokens);
            Ok(pipeline.reading_response(shape.tokens || shape.steps))
        });
        let text = text.transpose().map_err(|source| LoadError::Text { path: self.manifest_path(), source })?;
        let image = definition.image.as_ref().map(|image| ImagePipeline::load(self.folder, image));
        let image = image.transpose().map_err(|source| self.unreadable(source.into()))?;
        *digest = self.with_text_files(digest.clone(), definition)?;
        if before.version() != digest.clone().version() {
            return Err(LoadError::Changed { path: self.folder.to_owned() });
        }
        // A definition has text or images.
        InputPipeline::new(text, image).ok_or(LoadError::Panicked)
    }

    /// Starts a graph with the one for images beside it, tries and warms up both, and starts what writes.
    fn start_unit(
        &self,
        parts: &Parts<'_>,
        number: usize,
        side: Side<'_>,
    ) -> Result<(GraphUnit, Option<Critic>), LoadError> {
        let Parts { definition, pipeline, probes, metrics, .. } = *parts;
        let Side { source, graph, images, writes } = side;
        let mut running = self.start(parts, source, graph, self.replaced(number, graph))?;
        let critique = definition.critique.as_ref().filter(|_| writes).zip(pipeline.text());
        let mut writer = match critique {
            Some(_) => Some(Writer::open(definition, graph, &running.form)?),
            None => None,
        };
        let kept = self.first_passes(parts, source, graph);
        let known = kept.recall();
        let own = writer.as_mut().and_then(Writer::own);
        let numbers = give_back_weights(graph, &mut running, own, probes, known.as_ref());
        let mut unit = self.schedule(parts, graph, running)?;
        if let Some(images) = images {
            let running = self.start_pixels(parts, source, &images)?;
            unit.images = Some(Box::new(self.schedule(parts, &images, running)?));
        }
        // What went through before does so again, unless other numbers than were kept tell of another machine.
        let holds = known.as_ref().is_some_and(|known| known.is_empty() || numbers.is_none());
        let needed = if holds { probes.short() } else { probes.all().to_vec() };
        warm_up(&unit, &needed).map_err(|(tokens, reason)| LoadError::WarmUp {
            path: self.manifest_path(),
            tokens,
            shortest: probes.short().iter().any(|probe| probe.len() == tokens),
            reason,
        })?;
        if numbers.is_some() || known.is_none() {
            kept.keep(&numbers.unwrap_or_default());
        }
        if let GraphForm::Prefixes(prefixes) = &unit.form {
            // Nobody will send what it was warmed up with.
            prefixes.forget();
        }
        let Some(((critique, pipeline), writer)) = critique.zip(writer) else { return Ok((unit, None)) };
        let (form, roster) = (&unit.form, &self.given.repository.roster);
        let probe = probes.all().first();
        let parts = critic::Parts { definition, critique, pipeline, form, metrics, probe, roster };
        let critic = critic::start(&parts, writer)?;
        Ok((unit, Some(critic)))
    }

    fn manifest_path(&self) -> PathBuf {
        self.folder.join(manifest::FILE_NAME)
    }

    /// What keeps a sample from becoming an input, told of the manifest.
    fn unreadable(&self, error: InputError) -> LoadError {
        let path = self.manifest_path();
        match error {
            InputError::Text(source) => LoadError::Text { path, source },
            source => LoadError::Input { path, source },
        }
    }
}
