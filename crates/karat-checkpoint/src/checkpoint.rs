//! A folder as a model: read once, with everything that stands in the way told together.

use std::{collections::BTreeSet, num::NonZeroUsize, path::Path};

use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    classes::{self, Class},
    config::Config,
    decided::{Decided, Gating, Reads},
    ensemble::Adapters,
    graphs::{Element, Form, Graph, NumbersMut, Tensor},
    heads::{Head, Kind},
    leftovers, manifest, normalise,
    origin::Origin,
    problems::{CheckpointError, Problems},
    reading::Reading,
    reasons,
    recipe::Recipe,
    seeing::{self, Seeing},
    tokens::Tokens,
    trunks::{Decoder, Part, Read, encoder::Encoder, modernbert::ModernBert},
    weights::Weights,
};

/// What a configuration describes.
enum Shape {
    Decoder(Decoder),
    Encoder(Encoder),
    Modern(ModernBert),
}

/// A checkpoint that can be served.
#[derive(Debug)]
pub struct Checkpoint {
    origin: Origin,
    weights: Weights,
    /// `config.json`, and an adapter's own configuration, as they were read.
    configuration: String,
    graph: Graph,
    /// The graph of images beside one of texts.
    images: Option<Graph>,
    /// The most tokens for which the graph is exact.
    context: usize,
    recipe: Recipe,
    reasons: Vec<String>,
    manifest: Result<String, String>,
}

impl Checkpoint {
    /// Reads a checkpoint: its configuration, the headers of its weights, and what its tokenizer says; of adapters, that of
    /// the model they change, with the changes.
    ///
    /// # Errors
    /// Everything that stands in the way of serving it.
    pub fn read(origin: &Origin) -> Result<Self, CheckpointError> {
        let mut problems = Problems::default();
        let checkpoint = Self::of(origin, &mut problems);
        problems.finish(origin.folder(), checkpoint)
    }

    fn of(origin: &Origin, problems: &mut Problems) -> Option<Self> {
        let mut config = problems.take(Config::read(origin.model()));
        let weights = Weights::read(origin.model(), problems);
        let adapters = Adapters::read(origin, problems)?;
        if let Some(config) = config.take_if(|config| seeing::is_seeing(config)) {
            return Self::that_sees(origin, config, weights?, &adapters, problems);
        }
        let tokens = Tokens::read(tokenizer(origin), problems);
        let mut config = config?;
        let is_wrapped = config.open_text();
        let task = adapters.class_ending(problems);
        let family = classes::family(&config, problems)?;
        config.fill_in(family.defaults);
        let class = Class::read(family, &config, task, problems)?;
        let shape = match family.read {
            Read::Decoder(read) => read(&config, problems).map(Shape::Decoder),
            Read::Encoder(read) => read(&config, problems).map(Shape::Encoder),
            Read::Modern(read) => read(&config, problems).map(Shape::Modern),
        };
        let pad_id = config.token("pad_token_id");
        // A task that was chosen for an adapter says nothing of its base's labels.
        let labels = labels(&config).filter(|_| task.is_none());
        let last_token = last_token(&config, tokens.as_ref(), problems);
        let mut weights = weights?;
        // What trainers wrap a model in leaves its name before every tensor's.
        for wrapper in ["module.", "_orig_mod.", "pretrained_model."] {
            weights.strip(wrapper, |name| name.starts_with("v_head."));
        }
        weights.rename_norms();
        if is_wrapped {
            weights.open_text();
        }
        adapters.apply(&mut weights, problems);
        let normalise = normalise::read(&config, &weights, problems);
        let head = match family.read {
            Read::Decoder(_) => Head::find(class.kind, &adapters.members(), &weights, &config, problems),
            Read::Encoder(_) | Read::Modern(_) if origin.is_ensemble() => {
                problems.add("adapters of an encoder have no graph in common; serve each as a model by itself")
            }
            Read::Encoder(_) | Read::Modern(_) if class.kind == Kind::Sequence => None,
            Read::Encoder(_) | Read::Modern(_) => problems
                .add(format!("config.json: {}: an encoder gives rewards as a sequence classifier alone", class.name)),
        };
        config.refuse_leftovers(problems);
        let mut head_name = "classifier".to_owned();
        let (decided, recipe) = match shape? {
            Shape::Decoder(trunk) => {
                let (kind, head) = head?;
                head_name = head.name().to_owned();
                let table = trunk.piece(0, Part::Embeddings).tensor;
                let changed = [format!("{table}.weight"), "lm_head.weight".to_owned()];
                if let Some(changed) = changed.iter().find(|name| weights.is_changed(name))
                    && kind == Kind::LanguageModel
                    && trunk.tied_embeddings
                {
                    problems.add::<()>(format!(
                        "the adapter changes {changed}, and the logits are taken from the table of embeddings: merge it in \
                         PEFT and serve that"
                    ));
                }
                let reads = match kind {
                    Kind::Sequence => Reads::Scores,
                    Kind::Token => Reads::Steps,
                    Kind::LanguageModel => Reads::Logits,
                };
                let width = head.outputs(&trunk, &weights).first().map_or(0, |(_, width)| *width);
                let rewards = head.rewards(&trunk, &weights);
                if let Some(labels) = labels.filter(|labels| reads != Reads::Logits && *labels != rewards) {
                    problems.add::<()>(format!("config.json names {labels} labels, and the head has {rewards} rows"));
                }
                let gating = match head {
                    Head::Gated(_) => Some(Gating::AtMark(gate_mark(family.model_type))),
                    Head::Weighed(_) => Some(Gating::AtScore),
                    Head::Linear(_) | Head::Mlp(_) | Head::Members(_) | Head::LanguageModel(_) => None,
                };
                let (context, vocabulary) = (trunk.context, trunk.vocabulary);
                let recipe =
                    Recipe::Decoder { trunk, head, pad_id, pooling: class.pooling, last_token: last_token.clone() };
                let graph = recipe.write(Form::Rows, &BTreeSet::new(), &weights, problems)?;
                (Decided { graph, reads, width, context, vocabulary, normalise, gating, last_token }, recipe)
            }
            Shape::Encoder(encoder) => {
                let width = rows(&weights, encoder.classifier.last);
                let (context, vocabulary) = (encoder.context(), encoder.vocabulary);
                let recipe = Recipe::Encoder { trunk: encoder, labels: width };
                let graph = recipe.write(Form::Rows, &BTreeSet::new(), &weights, problems)?;
                (Decided::of_pairs(graph, width, context, vocabulary), recipe)
            }
            Shape::Modern(model) => {
                let width = rows(&weights, "classifier");
                let (context, vocabulary) = (model.context, model.vocabulary);
                let recipe = Recipe::Modern { trunk: model, labels: width };
                let graph = recipe.write(Form::Rows, &BTreeSet::new(), &weights, problems)?;
                (Decided::of_pairs(graph, width, context, vocabulary), recipe)
            }
        };
        if let Some(labels) = labels.filter(|labels| decided.reads == Reads::Pairs && *labels != decided.width) {
            problems.add::<()>(format!("config.json names {labels} labels, and the head has {} rows", decided.width));
        }
        leftovers::refuse(&weights, &decided, problems);
        let tokens = tokens?;
        tokens.check(decided.vocabulary, problems);
        classes::refuse_namesakes(origin.model(), &tokens, problems);
        let manifest = manifest::write(&class.name, &decided, &tokens);
        let mut reasons = reasons::of(&class, &head_name, pad_id, &decided, &tokens);
        reasons.extend(adapters.reason());
        let Decided { graph, context, .. } = decided;
        let configuration = config.into_text() + &adapters.written();
        let origin = origin.clone();
        Some(Self { origin, weights, configuration, graph, images: None, context, recipe, reasons, manifest })
    }

    /// A model that sees.
    fn that_sees(
        origin: &Origin,
        config: Config,
        mut weights: Weights,
        adapters: &Adapters,
        problems: &mut Problems,
    ) -> Option<Self> {
        if origin.is_ensemble() {
            return problems
                .add("adapters of models that see have no graph in common; serve each as a model by itself");
        }
        weights.know_later_names(seeing::later_names(&config));
        adapters.apply(&mut weights, problems);
        let tokens = |problems: &mut Problems| Tokens::read(tokenizer(origin), problems);
        let Seeing { model, graph, images, context, manifest, reasons } =
            seeing::read(&config, &mut weights, tokens, problems)?;
        let (configuration, recipe) = (config.into_text() + &adapters.written(), Recipe::Seeing(model));
        let origin = origin.clone();
        Some(Self { origin, weights, configuration, graph, images, context, recipe, reasons, manifest })
    }

    /// The graph for a processor: of a decoder one that shares what samples begin with (`rm-prefix/1`), of an encoder one
    /// of padded rows.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The graph that embeds images, of a model whose [`Self::graph`] embeds the texts that they are compared with.
    #[must_use]
    pub fn images(&self) -> Option<&Graph> {
        self.images.as_ref()
    }

    /// The graph that embeds images in a form, where [`Self::images`] does.
    ///
    /// # Errors
    /// When something stands in its way.
    pub fn images_for(&self, form: Form) -> Result<Option<Graph>, CheckpointError> {
        if form == Form::Rows {
            return Ok(self.images.clone());
        }
        let mut problems = Problems::default();
        let graph = self.recipe.write_images(form, &self.weights, &mut problems);
        problems.finish(self.origin.folder(), Some(graph))
    }

    /// The form that suits an NVIDIA GPU: packed rows in 16 bits, or else padded ones, or else those of 32 bits.
    #[must_use]
    pub fn form_on_gpu(&self) -> Form {
        let forms = [Form::Packed(self.half()), Form::HalfRows];
        forms.into_iter().find(|form| self.has(*form)).unwrap_or(Form::GpuRows)
    }

    /// Whether it has a form.
    #[must_use]
    pub fn has(&self, form: Form) -> bool {
        self.recipe.obstacle(form).is_none()
    }

    /// Why it hasn't a form, as a sentence without an end; `None` where it has.
    #[must_use]
    pub fn lacks(&self, form: Form) -> Option<String> {
        self.recipe.lacks(form)
    }

    /// The 16-bit format that suits it: of a decoder the one in which its weights are stored, where they are.
    #[must_use]
    pub fn half(&self) -> Element {
        self.recipe.half(&self.weights)
    }

    /// The graph in a form.
    ///
    /// # Errors
    /// When it has no such form.
    pub fn graph_for(&self, form: Form) -> Result<Graph, CheckpointError> {
        self.graph_reading(form, &BTreeSet::new())
    }

    /// The same, of a language model with the logits of these tokens alone, in the order of their ids; with those of all where
    /// there are none. Other models' graphs don't depend on them.
    ///
    /// # Errors
    /// As [`Self::graph_for`], and when the model hasn't a token.
    pub fn graph_reading(&self, form: Form, tokens: &BTreeSet<u32>) -> Result<Graph, CheckpointError> {
        if form == Form::Rows && tokens.is_empty() {
            return Ok(self.graph.clone());
        }
        let mut problems = Problems::default();
        let graph = self.recipe.write(form, tokens, &self.weights, &mut problems);
        problems.finish(self.origin.folder(), graph)
    }

    /// Reads a graph's weights, once, on so many threads: of each in the order of [`Graph::tensors`] into the memory that
    /// is given for it. `progress` is told now and then how many numbers are there.
    ///
    /// Gives a SHA-256 digest of exactly what was read, of the configuration and of the graph.
    ///
    /// # Errors
    /// When a file has changed, memory is of another size or format, or numbers aren't finite or none that the format
    /// holds.
    pub fn read_weights<'a>(
        &self,
        graph: &Graph,
        memory: impl IntoIterator<Item = NumbersMut<'a>>,
        threads: NonZeroUsize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<[u8; 32], CheckpointError> {
        let failed = |problem| self.error(problem);
        let tensors: Vec<(&Tensor, NumbersMut<'_>)> = graph.tensors.iter().zip(memory).collect();
        let fits = |(tensor, numbers): &(&Tensor, NumbersMut<'_>)| {
            tensor.shape.iter().product::<usize>() == numbers.len() && tensor.element == numbers.element()
        };
        if !tensors.iter().all(fits) || tensors.len() != graph.tensors.len() {
            return Err(failed("the memory for its weights is of another size".to_owned()));
        }
        let weights = Reading { weights: &self.weights, threads, progress }.run(tensors).map_err(failed)?;
        let mut digest = Sha256::new();
        digest.update(&self.configuration);
        digest.update(weights);
        digest.update(graph.model.encode_to_vec());
        Ok(digest.finalize().into())
    }

    /// The manifest that says what was decided, as TOML.
    ///
    /// # Errors
    /// When the head's numbers can mean several things, which only a person can tell apart.
    pub fn manifest(&self) -> Result<&str, CheckpointError> {
        self.manifest.as_deref().map_err(|problem| self.error(problem.clone()))
    }

    fn error(&self, problem: String) -> CheckpointError {
        CheckpointError { folder: self.origin.folder().to_owned(), problems: vec![problem] }
    }

    /// The files that its weights lie in.
    #[must_use]
    pub fn files(&self) -> BTreeSet<&Path> {
        self.weights.files()
    }

    /// Why the manifest says what it says: a sentence for each decision.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Whether the graph shares what samples begin with.
    #[must_use]
    pub fn is_decoder(&self) -> bool {
        self.graph.model.metadata_props.iter().any(|property| property.key() == "karat.contract")
    }

    /// The most tokens for which the graph is exact: those that it has positions for.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// How many numbers the graph's weights are.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let graphs = [Some(&self.graph), self.images.as_ref()].into_iter().flatten();
        graphs.flat_map(|graph| &graph.tensors).map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// The types in which the weights are stored, such as `BF16`.
    #[must_use]
    pub fn types(&self) -> BTreeSet<String> {
        self.weights.types()
    }
}

/// The folder of the tokenizer: an adapter's own, or the one that its base came with.
fn tokenizer(origin: &Origin) -> &Path {
    origin.folders().find(|folder| folder.join("tokenizer.json").is_file()).unwrap_or_else(|| origin.folder())
}

/// How many rows the matrix of that name has; 0 where there is none.
fn rows(weights: &Weights, name: &str) -> usize {
    weights.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied()).unwrap_or(0)
}

/// How many numbers the configuration says that the head gives.
fn labels(config: &Config) -> Option<usize> {
    let named = config.get("id2label").and_then(|labels| labels.as_object()).map(serde_json::Map::len);
    let counted =
        config.get("num_labels").and_then(serde_json::Value::as_u64).and_then(|count| usize::try_from(count).ok());
    named.or(counted)
}

/// The text at whose first token the authors' code reads a gate, in a family's own template: where the last answer begins.
fn gate_mark(model_type: &str) -> Option<&'static str> {
    (model_type == "llama").then_some("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
}

/// The token that InternLM2's reward models read their score at, and append for it.
fn last_token(config: &Config, tokens: Option<&Tokens>, problems: &mut Problems) -> Option<String> {
    let id = config.token("reward_token_id")?;
    let text = tokens?.text(id);
    if text.is_none() {
        problems.add::<()>(format!(
            "config.json: reward_token_id is {id}, and tokenizer.json has no such token; fetch the tokenizer anew"
        ));
    }
    text
}
