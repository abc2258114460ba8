//! Checkpoints of models that see: what is decided of their folders.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::{
    config::Config,
    graphs::{self, Element, Graph},
    heads::embedding::EmbeddingHead,
    manifest::MOST_TOKENS,
    problems::Problems,
    tokens::Tokens,
    trunks::{
        image::{IMAGE_TRUNKS, ImageFamily, ImageModel},
        towers::{TextRead, TextTower},
    },
    weights::Weights,
};

/// What was decided of a model that sees.
pub(crate) struct Seeing {
    pub(crate) model: ImageModel,
    /// The graph of texts, or of images where the model reads none.
    pub(crate) graph: Graph,
    /// The graph of images beside one of texts.
    pub(crate) images: Option<Graph>,
    pub(crate) context: usize,
    pub(crate) manifest: Result<String, String>,
    pub(crate) reasons: Vec<String>,
}

/// Whether a configuration is of a model that sees.
pub(crate) fn is_seeing(config: &Config) -> bool {
    family(config).is_some()
}

/// What later programs call parts of tensors' names.
pub(crate) fn later_names(config: &Config) -> &'static [(&'static str, &'static str)] {
    family(config).map_or(&[], |family| family.later_names)
}

fn family(config: &Config) -> Option<&'static ImageFamily> {
    let kind = config.text("model_type")?;
    IMAGE_TRUNKS.iter().find(|family| family.model_type == kind)
}

/// Decides everything from the configuration and the weights; `tokens` are there where the model reads texts.
pub(crate) fn read(
    config: &Config,
    weights: &mut Weights,
    tokens: impl FnOnce(&mut Problems) -> Option<Tokens>,
    problems: &mut Problems,
) -> Option<Seeing> {
    let ImageFamily { classes, read, .. } = family(config)?;
    let class = class(config, classes, problems)?;
    let labels = weights.shape("classifier.weight").and_then(|shape| shape.first().copied()).unwrap_or(0);
    let mut model = read(config, labels, problems)?;
    config.refuse_leftovers(problems);
    model.head = EmbeddingHead::find(weights, problems)?;
    check_heads(&model, problems)?;
    if model.head.is_some() {
        // What compares images with texts isn't asked for where a head rates an image by itself.
        model.text = None;
    }
    let image = graphs::images(&model, Element::Float32, weights, problems);
    let (graph, images) = match &model.text {
        Some(text) => (graphs::texts(text, Element::Float32, weights, problems), Some(image)),
        None => (image, None),
    };
    refuse_leftovers(weights, [Some(&graph), images.as_ref()].into_iter().flatten(), &model, problems);
    let mut manifest = Table::new();
    manifest.insert("description".to_owned(), format!("{class}, served from its checkpoint").into());
    manifest.insert("graph".to_owned(), Table::from_iter([("checkpoint".to_owned(), Value::from("."))]).into());
    let patch = i64::try_from(model.image.patch()).unwrap_or(i64::MAX);
    manifest.insert("image".to_owned(), Table::from_iter([("patch".to_owned(), Value::Integer(patch))]).into());
    let (context, head, reasons) = match (&model.text, &model.head) {
        (None, Some(head)) => {
            let reason =
                format!("{class} embeds images, and its head rates one by its normed embedding: {}.", head.describe());
            (1, scalar(head.rows(), config), vec![reason])
        }
        (None, None) => (1, scalar(labels, config), vec![format!("{class} rates an image by itself.")]),
        (Some(text), _) => {
            let likeness = likeness(text, class, weights, tokens, problems)?;
            manifest.insert("text".to_owned(), likeness.text.into());
            (text.positions, Ok(likeness.head), likeness.reasons)
        }
    };
    let manifest = head.map(|head| {
        manifest.insert("head".to_owned(), head);
        // A table of texts, numbers and tables always has a TOML form.
        toml::to_string(&manifest).unwrap_or_default()
    });
    Some(Seeing { model, graph, images, context, manifest, reasons })
}

/// The class that a configuration names, or the family's usual one.
fn class<'a>(config: &'a Config, classes: &[&'a str], problems: &mut Problems) -> Option<&'a str> {
    let named = config.get("architectures").and_then(|classes| classes.as_array()?.first()?.as_str());
    match named.or_else(|| classes.first().copied()) {
        Some(class) if classes.contains(&class) => Some(class),
        class => problems.add(format!(
            "config.json: the class {:?} is not known, and code that comes with a checkpoint is never run; known: {}",
            class.unwrap_or_default(),
            classes.join(", ")
        )),
    }
}

/// Refuses a model without a head, or with two.
fn check_heads(model: &ImageModel, problems: &mut Problems) -> Option<()> {
    match (&model.head, model.image.labels(), &model.text) {
        (Some(_), Some(_), _) => problems.add("there are two heads, a classifier and one over an embedding; keep one"),
        (None, None, None) => problems.add(
            "there is no reward head: this model embeds images. Put the head that was trained on its embeddings beside it, as \
             value_head.safetensors or value_head.pth",
        ),
        _ => Some(()),
    }
}

/// What is served of a model that compares images with texts.
struct Likeness {
    head: Value,
    text: Table,
    reasons: Vec<String>,
}

fn likeness(
    text: &TextTower,
    class: &str,
    weights: &Weights,
    tokens: impl FnOnce(&mut Problems) -> Option<Tokens>,
    problems: &mut Problems,
) -> Option<Likeness> {
    let tokens = tokens(problems)?;
    tokens.check(text.vocabulary, problems);
    let longest = text.positions.min(tokens.longest.unwrap_or(usize::MAX)).min(MOST_TOKENS);
    let table = Table::from_iter([
        ("render".to_owned(), Value::from("raw")),
        ("special_tokens".to_owned(), Value::Boolean(true)),
        ("max_tokens".to_owned(), Value::Integer(i64::try_from(longest).unwrap_or(i64::MAX))),
    ]);
    let (scale, bias) = (number(weights, "logit_scale", problems)?.exp(), bias(text.read, weights, problems)?);
    let mut head = Table::from_iter([("scale".to_owned(), Value::Float(f64::from(scale)))]);
    if let Some(bias) = bias {
        head.insert("bias".to_owned(), Value::Float(f64::from(bias)));
    }
    let head = Table::from_iter([("likeness".to_owned(), Value::from(head))]);
    let reasons = vec![
        format!("{class} compares an image with a text: the cosine of their embeddings."),
        format!("The cosine is scaled by {scale}, e^logit_scale, as the weights say."),
        format!("max_tokens is the least of its positions ({}) and what its tokenizer was made for.", text.positions),
    ];
    Some(Likeness { head: head.into(), text: table, reasons })
}

/// The head that reads so many numbers of an image: of several only a person can tell which is the reward.
fn scalar(numbers: usize, config: &Config) -> Result<Value, String> {
    if numbers == 1 {
        return Ok("scalar".into());
    }
    let named = config.get("id2label").and_then(|names| names.as_object());
    let some: Vec<&str> =
        named.iter().flat_map(|names| names.values()).filter_map(|name| name.as_str()).take(4).collect();
    Err(format!(
        "the head gives {numbers} numbers ({}), and which of them is the reward only you know: write a model.toml with \
         checkpoint = \".\" in [graph], an [image] table, and head = {{ classifier = {{ labels = [all of them], label = \
         \"…\", gives = \"probability\" }} }}",
        if some.is_empty() { "without names".to_owned() } else { format!("{}, …", some.join(", ")) }
    ))
}

/// What is added to a scaled cosine, of families that add something.
#[expect(clippy::option_option, reason = "a damaged number is told from none")]
fn bias(read: TextRead, weights: &Weights, problems: &mut Problems) -> Option<Option<f32>> {
    match read {
        TextRead::LastOfFilled(_) => number(weights, "logit_bias", problems).map(Some),
        TextRead::FirstOf(_) | TextRead::Highest => Some(None),
    }
}

/// The one number of a tensor.
fn number(weights: &Weights, name: &str, problems: &mut Problems) -> Option<f32> {
    if !weights.has(name) {
        return problems.add(format!("the checkpoint lacks {name}; save the whole model anew"));
    }
    match problems.take(weights.numbers(name))?.as_slice() {
        [number] if number.is_finite() => Some(*number),
        other => problems.add(format!("{name} is {other:?}, and should be one finite number")),
    }
}

/// Refuses tensors that neither graph reads: a part of the model that isn't known here.
///
/// Where a head rates an image by itself, what reads texts may lie unused beside it.
fn refuse_leftovers<'a>(
    weights: &Weights,
    graphs: impl Iterator<Item = &'a Graph>,
    model: &ImageModel,
    problems: &mut Problems,
) {
    let sources = graphs.flat_map(|graph| &graph.tensors).flat_map(|tensor| &tensor.sources);
    let used: BTreeSet<&str> = sources.map(|source| source.tensor.as_str()).collect();
    let of_texts = |name: &str| name.starts_with("text_model.") || name.starts_with("text_projection.");
    let known = |name: &str| {
        name.ends_with("position_ids")
            || matches!(name, "logit_scale" | "logit_bias")
            || (model.head.is_some() && of_texts(name))
    };
    let left: Vec<&str> = weights.names().filter(|name| !used.contains(name) && !known(name)).collect();
    if !left.is_empty() {
        let some = left.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        problems.add::<()>(format!("{} tensors have no place in this architecture, such as {some}", left.len()));
    }
}
