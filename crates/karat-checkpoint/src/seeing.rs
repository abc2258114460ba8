//! Checkpoints of models that see: what is decided of their folders.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::{
    config::Config,
    graphs::{self, Graph},
    manifest::MOST_TOKENS,
    problems::Problems,
    tokens::Tokens,
    trunks::towers::{self, ImageKind, TextRead, Towers},
    weights::Weights,
};

/// What was decided of a model that sees.
pub(crate) struct Seeing {
    pub(crate) towers: Towers,
    /// The graph of texts, or of images where the model reads none.
    pub(crate) graph: Graph,
    /// The graph of images beside one of texts.
    pub(crate) images: Option<Graph>,
    pub(crate) context: usize,
    pub(crate) manifest: Result<String, String>,
    pub(crate) reasons: Vec<String>,
}

/// Classes that a folder may name, by its `model_type`.
const CLASSES: &[(&str, &str)] =
    &[("clip", "CLIPModel"), ("siglip", "SiglipModel"), ("vit", "ViTForImageClassification")];

/// Whether a configuration is of a model that sees.
pub(crate) fn is_seeing(config: &Config) -> bool {
    config.text("model_type").is_some_and(|kind| towers::SEEING.contains(&kind))
}

/// Decides everything from the configuration and the weights; `tokens` are there where the model reads texts.
pub(crate) fn read(
    config: &Config,
    weights: &Weights,
    tokens: impl FnOnce(&mut Problems) -> Option<Tokens>,
    problems: &mut Problems,
) -> Option<Seeing> {
    let kind = config.text("model_type").unwrap_or_default();
    let named = config.get("architectures").and_then(|classes| classes.as_array()?.first()?.as_str());
    let class = CLASSES.iter().find(|(known, _)| *known == kind).map_or("", |(_, class)| class);
    if named.is_some_and(|named| named != class) {
        return problems.add(format!(
            "config.json: the class {:?} is not known, and code that comes with a checkpoint is never run; known is {class}",
            named.unwrap_or_default()
        ));
    }
    let labels = weights.shape("classifier.weight").and_then(|shape| shape.first().copied()).unwrap_or(0);
    let towers = towers::read(config, labels, problems)?;
    config.refuse_leftovers(problems);
    let image = graphs::images(&towers.image, weights, problems);
    let (graph, images) = match &towers.text {
        Some(text) => (graphs::texts(text, weights, problems), Some(image)),
        None => (image, None),
    };
    refuse_leftovers(weights, [Some(&graph), images.as_ref()].into_iter().flatten(), problems);
    let mut manifest = Table::new();
    manifest.insert("description".to_owned(), format!("{class}, served from its checkpoint").into());
    manifest.insert("graph".to_owned(), Table::from_iter([("checkpoint".to_owned(), Value::from("."))]).into());
    let patch = i64::try_from(towers.image.patch).unwrap_or(i64::MAX);
    manifest.insert("image".to_owned(), Table::from_iter([("patch".to_owned(), Value::Integer(patch))]).into());
    let (context, head, reasons) = match &towers.text {
        None => (1, labels_head(config, &towers), vec![format!("{class} rates an image by itself.")]),
        Some(text) => {
            let tokens = tokens(problems)?;
            tokens.check(text.vocabulary, problems);
            let longest = text.positions.min(tokens.longest.unwrap_or(usize::MAX)).min(MOST_TOKENS);
            let table = Table::from_iter([
                ("render".to_owned(), Value::from("raw")),
                ("special_tokens".to_owned(), Value::Boolean(true)),
                ("max_tokens".to_owned(), Value::Integer(i64::try_from(longest).unwrap_or(i64::MAX))),
            ]);
            manifest.insert("text".to_owned(), table.into());
            let (scale, bias) = (number(weights, "logit_scale", problems)?.exp(), bias(text.read, weights, problems)?);
            let mut head = Table::from_iter([("scale".to_owned(), Value::Float(f64::from(scale)))]);
            if let Some(bias) = bias {
                head.insert("bias".to_owned(), Value::Float(f64::from(bias)));
            }
            let head = Table::from_iter([("likeness".to_owned(), Value::from(head))]);
            let reasons = vec![
                format!("{class} compares an image with a text: the cosine of their embeddings."),
                format!("The cosine is scaled by {scale}, e^logit_scale, as the weights say."),
                format!(
                    "max_tokens is the least of its positions ({}) and what its tokenizer was made for.",
                    text.positions
                ),
            ];
            (text.positions, Ok(head.into()), reasons)
        }
    };
    let manifest = head.map(|head: Value| {
        manifest.insert("head".to_owned(), head);
        // A table of texts, numbers and tables always has a TOML form.
        toml::to_string(&manifest).unwrap_or_default()
    });
    Some(Seeing { towers, graph, images, context, manifest, reasons })
}

/// The head of a classifier: of several labels only a person can tell which is the reward.
fn labels_head(config: &Config, towers: &Towers) -> Result<Value, String> {
    let ImageKind::Classifier(labels) = towers.image.kind else { return Ok("scalar".into()) };
    if labels == 1 {
        return Ok("scalar".into());
    }
    let named = config.get("id2label").and_then(|names| names.as_object());
    let some: Vec<&str> =
        named.iter().flat_map(|names| names.values()).filter_map(|name| name.as_str()).take(4).collect();
    Err(format!(
        "the classifier has {labels} labels ({}, …), and which of them is the reward only you know: write a model.toml with \
         checkpoint = \".\" in [graph], an [image] table, and head = {{ classifier = {{ labels = [all of them], label = \
         \"…\", gives = \"probability\" }} }}",
        some.join(", ")
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
fn refuse_leftovers<'a>(weights: &Weights, graphs: impl Iterator<Item = &'a Graph>, problems: &mut Problems) {
    let sources = graphs.flat_map(|graph| &graph.tensors).flat_map(|tensor| &tensor.sources);
    let used: BTreeSet<&str> = sources.map(|source| source.tensor.as_str()).collect();
    let known = |name: &str| name.ends_with("position_ids") || matches!(name, "logit_scale" | "logit_bias");
    let left: Vec<&str> = weights.names().filter(|name| !used.contains(name) && !known(name)).collect();
    if !left.is_empty() {
        let some = left.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        problems.add::<()>(format!("{} tensors have no place in this architecture, such as {some}", left.len()));
    }
}
