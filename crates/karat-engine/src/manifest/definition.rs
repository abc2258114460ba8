//! A manifest whose parts fit each other: every rule built, every contradiction refused.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use karat_checkpoint::Origin;
use karat_hub::Hub;
use karat_rules::{
    aggregate::{self, Aggregation, MembersShape},
    domain::{ModelName, catalogue::Choice},
    head::{self, Head, Probing},
    transform::Chain,
};
use karat_runtime::{Provider, ProviderKind};

use super::{
    CheckpointForm, FILE_NAME, GraphInputs, GraphSection, Manifest, ManifestError, OutputList, SchedulingSection,
    critique::CritiqueDefinition,
    ensemble::{OF_MEMBERS, of_members},
    fit::{misplaced, unseen},
    origins::{checkpoint, together},
};
use crate::{image::ImageConfig, text::TextConfig};

/// More tokens than any model takes: a sample of that length is made when it is loaded.
const MOST_TOKENS: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 24) - 1);

/// What a manifest defines.
#[derive(Debug)]
pub(crate) enum Definition {
    /// A model with graphs of its own.
    Graph(Box<GraphDefinition>),
    /// A composite of other models.
    Composite(CompositeDefinition),
}

/// A model with graphs of its own.
#[derive(Debug)]
pub(crate) struct GraphDefinition {
    /// The manifest's path, for messages.
    pub manifest: PathBuf,
    /// The graphs, at least one.
    pub graphs: Vec<GraphSource>,
    /// The files beside them that embed images, as many as there are graphs, or none.
    pub images: Vec<PathBuf>,
    /// The form of graphs that are built from checkpoints, if the manifest says.
    pub form: Option<CheckpointForm>,
    /// Input names that the manifest gives.
    pub inputs: GraphInputs,
    /// Output names that the manifest gives, at least one if any.
    pub outputs: Option<Vec<String>>,
    /// How texts become tokens, if the model reads any.
    pub text: Option<TextConfig>,
    /// How images are prepared, if the model sees any.
    pub image: Option<ImageConfig>,
    /// How outputs become scores.
    pub head: Box<dyn Head>,
    /// Execution providers in order of preference, at least one.
    pub providers: Vec<Provider>,
    /// How the model uses the machine.
    pub scheduling: SchedulingSection,
    /// How members become one.
    pub aggregate: Box<dyn Aggregation>,
    /// What happens to the reward after that.
    pub transforms: Chain,
    /// How critiques are written, if the model writes any.
    pub critique: Option<CritiqueDefinition>,
}

/// Where a graph comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GraphSource {
    /// An ONNX file, as a full path.
    File(PathBuf),
    /// A checkpoint.
    Checkpoint(Origin),
}

impl GraphDefinition {
    /// Takes the tokenizer and the preprocessor, with what lies beside them, from a checkpoint's folder where the model's own has none.
    pub(crate) fn locate_tokenizer(&mut self, folder: &Path) {
        let graphs = &self.graphs;
        // Files of the settings are looked for in the model's folder unless their paths are whole.
        let locate = |file: &mut PathBuf| {
            let own = Some(folder).into_iter();
            let mut folders = own.chain(graphs.iter().flat_map(GraphSource::folders));
            if let Some(found) = folders.find(|folder| folder.join(&file).is_file())
                && found != folder
            {
                let found = found.join(&file);
                *file = std::path::absolute(&found).unwrap_or(found);
            }
        };
        if let Some(text) = &mut self.text {
            locate(&mut text.tokenizer);
        }
        if let Some(image) = &mut self.image {
            locate(&mut image.preprocessor);
        }
    }

    /// The longest text; of a model that reads none, a token.
    pub(crate) fn longest(&self) -> NonZeroUsize {
        self.text.as_ref().map_or(NonZeroUsize::MIN, |text| text.max_tokens)
    }
}

impl GraphSource {
    /// The folders of a checkpoint, the nearest first.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        let origin = match self {
            Self::File(_) => None,
            Self::Checkpoint(origin) => Some(origin),
        };
        origin.into_iter().flat_map(Origin::folders)
    }

    /// A file beside the graph, for what is measured of it: named after the graph's own, with another ending.
    #[must_use]
    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        match self {
            Self::File(file) => file.with_extension(ending),
            Self::Checkpoint(origin) => origin.folder().join("checkpoint").with_extension(ending),
        }
    }
}

/// A composite of other models.
#[derive(Debug)]
pub(crate) struct CompositeDefinition {
    /// The models, at least one, in the manifest's order.
    pub members: Vec<MemberDefinition>,
    /// How their rewards become one.
    pub aggregate: Box<dyn Aggregation>,
    /// What happens to the reward after that.
    pub transforms: Chain,
}

/// One model of a composite.
#[derive(Debug, Clone)]
pub(crate) struct MemberDefinition {
    /// The model's name.
    pub model: ModelName,
    /// How its members become one, if not as its manifest says.
    pub aggregate: Option<Choice>,
    /// What happens to its reward, if not what its manifest says.
    pub transforms: Option<Vec<Choice>>,
}

impl Definition {
    /// Builds what `manifest`, read from `folder`, defines.
    ///
    /// # Errors
    /// When keys contradict each other, a rule's parameters are wrong, or a graph file is missing.
    pub(crate) fn new(manifest: Manifest, folder: &Path, hub: &Hub) -> Result<Self, ManifestError> {
        let path = folder.join(FILE_NAME);
        let refuse = |key: &str, found: String, wanted: &str| ManifestError::Key {
            path: path.clone(),
            key: key.to_owned(),
            found,
            wanted: wanted.to_owned(),
        };
        let rule = |key: &'static str| {
            let path = path.clone();
            move |error: &dyn std::fmt::Display| ManifestError::Key {
                path,
                key: key.to_owned(),
                found: error.to_string(),
                wanted: "see the manifest reference".to_owned(),
            }
        };
        let aggregate = aggregate::CATALOGUE.build(&manifest.aggregate).map_err(|error| rule("aggregate")(&error))?;

        let (models, adapters) = manifest.ensemble.split();
        if manifest.critique.is_some() && !models.is_empty() {
            return Err(refuse(
                "critique",
                "a composite has no graph that could write".to_owned(),
                "put the table into the manifest of a model with a graph of its own",
            ));
        }
        // Adapters are a graph of their own, of which [graph] may say more.
        let graph = manifest.graph.or_else(|| adapters.is_some().then(GraphSection::default));
        let reads = manifest.text.is_some() || manifest.image.is_some();
        let graph = match (graph, reads, models.is_empty()) {
            (Some(graph), true, true) => graph,
            (None, false, false) => {
                let transforms =
                    Chain::build(&manifest.transforms, false).map_err(|error| rule("transforms")(&error))?;
                aggregate.check(&MembersShape::of(models.len())).map_err(|error| rule("aggregate")(&error))?;
                let members = models.into_iter().map(|member| MemberDefinition {
                    model: member.model,
                    aggregate: member.aggregate,
                    transforms: member.transforms,
                });
                return Ok(Self::Composite(CompositeDefinition { members: members.collect(), aggregate, transforms }));
            }
            (_, _, false) => {
                return Err(refuse(
                    "ensemble",
                    "a composite has no graph, text or image of its own".to_owned(),
                    "remove [graph], [text] and [image], or put them into a model folder of their own and name it here",
                ));
            }
            (Some(_), false, true) => {
                return Err(refuse(
                    "text",
                    "the table is missing".to_owned(),
                    "add [text] with render and max_tokens, or [image] for a model that sees",
                ));
            }
            (None, _, true) => {
                return Err(refuse(
                    "graph",
                    "the table is missing".to_owned(),
                    "add [graph] with the ONNX file, or ensemble with the models or adapters to combine",
                ));
            }
        };

        let (text, image) = (manifest.text, manifest.image);
        if let Some(text) = text.as_ref().filter(|text| text.max_tokens > MOST_TOKENS) {
            return Err(refuse(
                "text.max_tokens",
                text.max_tokens.to_string(),
                "write what the model was trained for; no model takes more than 16777216",
            ));
        }
        let written = match &adapters {
            Some(adapters) if adapters.is_empty() => {
                return Err(refuse("ensemble", "the list is empty".to_owned(), "name at least one adapter"));
            }
            Some(adapters) => of_members(manifest.head, adapters.len())
                .ok_or_else(|| refuse("head", "adapters give one score each".to_owned(), OF_MEMBERS))?,
            None => manifest.head,
        };
        let head = head::CATALOGUE.build(&written).map_err(|error| rule("head")(&error))?;
        let misplaced = text.as_ref().and_then(|text| misplaced(text, &*head));
        if let Some((key, found, wanted)) = misplaced.or_else(|| unseen(text.is_some(), image.is_some(), &*head)) {
            return Err(refuse(key, found, wanted));
        }
        if image.is_some() && manifest.critique.is_some() {
            return Err(refuse("critique", "this model sees, and writes nothing".to_owned(), "remove the table"));
        }
        let transforms =
            Chain::build(&manifest.transforms, head.gives_steps()).map_err(|error| rule("transforms")(&error))?;
        let (key, graphs): (_, Vec<GraphSource>) = match (graph.file, graph.checkpoint, adapters) {
            (None, None, Some(adapters)) => {
                ("ensemble", vec![GraphSource::Checkpoint(together(&adapters, folder, hub)?)])
            }
            (_, _, Some(_)) => {
                return Err(refuse(
                    "graph",
                    "the graph is that of the adapters, and another one is named".to_owned(),
                    "remove file and checkpoint, or ensemble",
                ));
            }
            (Some(files), None, None) => {
                ("graph.file", files.within(folder).into_iter().map(GraphSource::File).collect())
            }
            (None, Some(folders), None) => {
                let places = folders.paths().into_iter().map(|place| checkpoint(&place, folder, hub));
                (
                    "graph.checkpoint",
                    places.map(|origin| origin.map(GraphSource::Checkpoint)).collect::<Result<_, _>>()?,
                )
            }
            (Some(_), Some(_), None) => {
                return Err(refuse(
                    "graph",
                    "there are both file and checkpoint".to_owned(),
                    "keep the one that the graph is to come from",
                ));
            }
            (None, None, None) => {
                return Err(refuse(
                    "graph",
                    "there is neither file nor checkpoint".to_owned(),
                    "name the ONNX file, or write checkpoint = \".\" where the folder holds a checkpoint",
                ));
            }
        };
        if graph.form.is_some() && graphs.iter().any(|source| matches!(source, GraphSource::File(_))) {
            return Err(refuse(
                "graph.form",
                "a graph in a file has the form that it was exported in".to_owned(),
                "remove the key, or name a checkpoint",
            ));
        }
        let images: Vec<PathBuf> = graph.images.map_or_else(Vec::new, |images| images.within(folder));
        let in_files = graphs.iter().all(|source| matches!(source, GraphSource::File(_)));
        let two_sides = text.is_some() && image.is_some();
        if images.len() != if two_sides && in_files { graphs.len() } else { 0 } {
            return Err(refuse(
                "graph.images",
                format!("there are {} files that embed images", images.len()),
                "name one for each file that embeds texts, and none where there are no texts or a checkpoint has both",
            ));
        }
        if image.is_some() && manifest.providers.iter().any(|provider| provider.kind() == ProviderKind::Tensorrt) {
            return Err(refuse(
                "providers",
                "TensorRT's engines are built for tokens, and this model sees".to_owned(),
                "write \"cuda\" or \"cpu\"",
            ));
        }
        if graphs.is_empty() {
            return Err(refuse(key, "the list is empty".to_owned(), "name at least one"));
        }
        let shape = head.shape();
        let graphs_a_score = head.probing().map_or(1, Probing::graphs);
        if !graphs.len().is_multiple_of(graphs_a_score) {
            return Err(refuse(
                key,
                format!("the head reads {graphs_a_score} graphs a score, and there are {}", graphs.len()),
                "name the policy's graph and then its reference's",
            ));
        }
        let scores = graphs.len() / graphs_a_score;
        if scores > 1 && (shape.steps || shape.tokens) {
            return Err(refuse(
                key,
                format!("the head gives a score for each step or token, and there are {} graphs", graphs.len()),
                "name one graph: only scores of whole responses can be strung together",
            ));
        }
        let members = MembersShape {
            members: shape.members * scores,
            deviations: shape.deviations,
            objectives: shape.objectives,
            candidates: 1,
        };
        aggregate.check(&members).map_err(|error| rule("aggregate")(&error))?;
        let files = graphs.iter().filter_map(|graph| match graph {
            GraphSource::File(file) => Some(file),
            GraphSource::Checkpoint(_) => None,
        });
        if let Some(missing) = files.into_iter().chain(&images).find(|file| !file.is_file()) {
            return Err(refuse(
                "graph.file",
                format!("there is no file {}", missing.display()),
                "write its path relative to the model's folder, or build it (the demo models: `make setup`)",
            ));
        }
        let outputs = graph.output.map(|outputs| match outputs {
            OutputList::One(output) => vec![output],
            OutputList::Many(outputs) => outputs,
        });
        if outputs.as_ref().is_some_and(Vec::is_empty) {
            return Err(refuse("graph.output", "the list is empty".to_owned(), "name an output, or remove the key"));
        }
        if manifest.providers.is_empty() {
            return Err(refuse("providers", "the list is empty".to_owned(), "write providers = [\"cpu\"]"));
        }
        let has_tensorrt = manifest.providers.iter().any(|provider| provider.kind() == ProviderKind::Tensorrt);
        if graph.form == Some(CheckpointForm::Packed) && has_tensorrt {
            return Err(refuse(
                "providers",
                "TensorRT has no attention over blocks of keys and values, which packed rows need".to_owned(),
                "write providers = [\"cuda\"], or form = \"rows\" in [graph]",
            ));
        }
        let critique = manifest
            .critique
            .map(CritiqueDefinition::new)
            .transpose()
            .map_err(|(key, found)| refuse(key, found, "see the manifest reference"))?;
        Ok(Self::Graph(Box::new(GraphDefinition {
            manifest: path.clone(),
            graphs,
            images,
            form: graph.form,
            inputs: graph.inputs,
            outputs,
            text,
            image,
            head,
            providers: manifest.providers,
            scheduling: manifest.scheduling,
            aggregate,
            transforms,
            critique,
        })))
    }
}
