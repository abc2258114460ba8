//! Models that see: towers of layers over the patches of an image and, of those that compare, over a text.
//!
//! CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023) and ViT (Dosovitskiy et al. 2020). All normalise before attention
//! and MLP, have learned positions, and differ in what they read of the last layer.

use serde_json::Value;

use super::{
    encoder::Gate,
    image::{ImageFamily, ImageModel, ImageTrunk},
};
use crate::{config::Config, problems::Problems};

pub(super) const CLIP_FAMILY: ImageFamily =
    ImageFamily { model_type: "clip", classes: &["CLIPModel"], later_names: &[], read: read_clip };
/// CLIP's tower of images alone, as aesthetic predictors are published with it.
pub(super) const CLIP_VISION_FAMILY: ImageFamily = ImageFamily {
    model_type: "clip_vision_model",
    classes: &[
        "CLIPVisionModelWithProjection",
        "AestheticsPredictorV1",
        "AestheticsPredictorV2Linear",
        "AestheticsPredictorV2ReLU",
    ],
    later_names: &[],
    read: read_clip_vision,
};
pub(super) const SIGLIP_FAMILY: ImageFamily =
    ImageFamily { model_type: "siglip", classes: &["SiglipModel"], later_names: &[], read: read_siglip };
/// SigLIP's tower of images alone.
pub(super) const SIGLIP_VISION_FAMILY: ImageFamily = ImageFamily {
    model_type: "siglip_vision_model",
    classes: &["SiglipVisionModel", "AestheticPredictorV2p5Model"],
    later_names: &[],
    read: read_siglip_vision,
};
pub(super) const VIT_FAMILY: ImageFamily = ImageFamily {
    model_type: "vit",
    classes: &["ViTForImageClassification"],
    // Transformers 5's.
    later_names: &[
        ("vit.layers.", "vit.encoder.layer."),
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ],
    read: read_vit,
};

/// What all towers have.
#[derive(Debug, Clone)]
pub(crate) struct Tower {
    /// The width of a state.
    pub(crate) hidden: usize,
    /// How many layers.
    pub(crate) layers: usize,
    /// How many heads a layer; divides `hidden`.
    pub(crate) heads: usize,
    /// The width of the MLP.
    pub(crate) intermediate: usize,
    /// What keeps a norm's root from 0.
    pub(crate) epsilon: f64,
    /// The MLP's activation.
    pub(crate) activation: Gate,
    /// Whether queries, keys and values have a bias.
    pub(crate) bias: bool,
    /// What its tensors are called.
    pub(crate) names: &'static Names,
}

/// What a family calls the tensors of a layer, behind `layer` and its number; `.weight` and `.bias` left out.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) layer: &'static str,
    pub(crate) before_attention: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) drawn: &'static str,
    pub(crate) before_mlp: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
}

/// A tower over the tokens of a text.
#[derive(Debug, Clone)]
pub(crate) struct TextTower {
    pub(crate) tower: Tower,
    /// How many tokens have an embedding.
    pub(crate) vocabulary: usize,
    /// How many positions have an embedding.
    pub(crate) positions: usize,
    /// Where the text's state is read.
    pub(crate) read: TextRead,
    /// The width of the space that texts and images share.
    pub(crate) width: usize,
}

/// Where a text's state is read, and what a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextRead {
    /// At the first token of this id; a token sees those before it.
    FirstOf(u32),
    /// At the first token of the highest id, as the first CLIP models' configuration means it; a token sees those before.
    Highest,
    /// At the last of all positions, which are filled with this token; a token sees all.
    LastOfFilled(u32),
}

/// A tower over the patches of an image.
#[derive(Debug, Clone)]
pub(crate) struct ImageTower {
    pub(crate) tower: Tower,
    /// Rows and columns of an image.
    pub(crate) size: [usize; 2],
    /// The side of a patch.
    pub(crate) patch: usize,
    /// What stands before the layers and after them.
    pub(crate) kind: ImageKind,
}

/// What stands before and after the layers of an image's tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    /// CLIP's: a token of its own before the patches, normed before the layers, read and projected to so many numbers.
    Clip(usize),
    /// SigLIP's: the patches alone, of which a learned query draws.
    Siglip,
    /// ViT's: a token of its own, read by a classifier of so many labels.
    Classifier(usize),
}

impl ImageTower {
    /// How many patches an image has.
    pub(crate) fn patches(&self) -> usize {
        self.size.iter().map(|side| side / self.patch).product()
    }
}

const TEXT: Names = Names { layer: "text_model.encoder.layers.", ..IMAGE };
const IMAGE: Names = Names {
    layer: "vision_model.encoder.layers.",
    before_attention: "layer_norm1",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    drawn: "self_attn.out_proj",
    before_mlp: "layer_norm2",
    inner: "mlp.fc1",
    outer: "mlp.fc2",
};
static OF_TEXT: Names = TEXT;
static OF_IMAGE: Names = IMAGE;
static OF_VIT: Names = Names {
    layer: "vit.encoder.layer.",
    before_attention: "layernorm_before",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    drawn: "attention.output.dense",
    before_mlp: "layernorm_after",
    inner: "intermediate.dense",
    outer: "output.dense",
};

/// What Transformers takes for a tower's keys that are missing.
struct Defaults {
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    epsilon: f64,
    activation: &'static str,
}

const CLIP_TEXT: Defaults =
    Defaults { hidden: 512, intermediate: 2048, layers: 12, heads: 8, epsilon: 1e-5, activation: "quick_gelu" };
const CLIP_IMAGE: Defaults = Defaults { hidden: 768, intermediate: 3072, heads: 12, ..CLIP_TEXT };
const SIGLIP: Defaults = Defaults { epsilon: 1e-6, activation: "gelu_pytorch_tanh", ..CLIP_IMAGE };
const VIT: Defaults = Defaults { epsilon: 1e-12, activation: "gelu", ..CLIP_IMAGE };

/// Keys that decide nothing.
const SILENT: &[&str] = &[
    "initializer_factor",
    "logit_scale_init_value",
    "projection_dim",
    "encoder_stride",
    "pooler_act",
    "pooler_output_size",
    "id2label",
    "num_labels",
    "auto_map",
];

fn read_clip(config: &Config, _: usize, problems: &mut Problems) -> Option<ImageModel> {
    config.know(SILENT);
    let width = config.count_or("projection_dim", 512, problems)?;
    let text = part(config, "text", problems)?;
    let image = part(config, "vision", problems)?;
    let found = ImageModel {
        text: Some(clip_text(&text, width, problems)?),
        image: image_tower(&image, &CLIP_IMAGE, &OF_IMAGE, ImageKind::Clip(width), 32, problems)?,
        head: None,
    };
    text.refuse_leftovers(problems);
    image.refuse_leftovers(problems);
    Some(found)
}

fn read_clip_vision(config: &Config, _: usize, problems: &mut Problems) -> Option<ImageModel> {
    config.know(SILENT);
    let width = config.count_or("projection_dim", 512, problems)?;
    image_tower(config, &CLIP_IMAGE, &OF_IMAGE, ImageKind::Clip(width), 32, problems).map(ImageModel::of_images)
}

fn read_siglip(config: &Config, _: usize, problems: &mut Problems) -> Option<ImageModel> {
    config.know(SILENT);
    let text = part(config, "text", problems)?;
    let image = part(config, "vision", problems)?;
    check_query(&image, problems);
    let found = ImageModel {
        text: Some(siglip_text(&text, problems)?),
        image: image_tower(&image, &SIGLIP, &OF_IMAGE, ImageKind::Siglip, 16, problems)?,
        head: None,
    };
    text.refuse_leftovers(problems);
    image.refuse_leftovers(problems);
    Some(found)
}

fn read_siglip_vision(config: &Config, _: usize, problems: &mut Problems) -> Option<ImageModel> {
    config.know(SILENT);
    check_query(config, problems);
    image_tower(config, &SIGLIP, &OF_IMAGE, ImageKind::Siglip, 16, problems).map(ImageModel::of_images)
}

fn read_vit(config: &Config, labels: usize, problems: &mut Problems) -> Option<ImageModel> {
    config.know(SILENT);
    image_tower(config, &VIT, &OF_VIT, ImageKind::Classifier(labels), 16, problems).map(ImageModel::of_images)
}

/// Refuses towers of SigLIP's without the query that draws an embedding of an image's patches.
fn check_query(image: &Config, problems: &mut Problems) {
    if image.get("vision_use_head").is_some_and(|uses| uses == &Value::Bool(false)) {
        problems.add::<()>("config.json: vision_use_head is false, and nothing says how an image is read");
    }
}

/// What the configuration says of one tower: in `NAME_config_dict` where it stands there, as Transformers reads it.
fn part(config: &Config, name: &str, problems: &mut Problems) -> Option<Config> {
    let within = [format!("{name}_config_dict"), format!("{name}_config")];
    let found = within.iter().filter_map(|key| config.part(key)).next();
    let found = found.or_else(|| problems.add(format!("config.json lacks {name}_config; save the checkpoint anew")))?;
    found.know(&[
        "model_type",
        "architectures",
        "projection_dim",
        "initializer_factor",
        "logit_scale_init_value",
        "id2label",
        "num_labels",
        "dropout",
    ]);
    Some(found)
}

fn tower(config: &Config, defaults: &Defaults, names: &'static Names, problems: &mut Problems) -> Option<Tower> {
    let hidden = config.count_or("hidden_size", defaults.hidden, problems);
    let intermediate = config.count_or("intermediate_size", defaults.intermediate, problems);
    let layers = match config.get("num_hidden_layers") {
        None => Some(defaults.layers),
        Some(_) => config.layers("num_hidden_layers", problems),
    };
    let heads = config.count_or("num_attention_heads", defaults.heads, problems);
    let epsilon = config.positive_or("layer_norm_eps", defaults.epsilon, problems);
    let activation = activation(config, defaults.activation, problems);
    let bias = config.get("qkv_bias").is_none_or(|bias| bias != &Value::Bool(false));
    let (hidden, heads) = (hidden?, heads?);
    if !hidden.is_multiple_of(heads) {
        return problems.add(format!("config.json: {hidden} is no multiple of {heads} heads"));
    }
    Some(Tower {
        hidden,
        layers: layers?,
        heads,
        intermediate: intermediate?,
        epsilon: epsilon?,
        activation: activation?,
        bias,
        names,
    })
}

/// The activation that a configuration names.
pub(super) fn activation(config: &Config, default: &str, problems: &mut Problems) -> Option<Gate> {
    match config.text("hidden_act").unwrap_or(default) {
        "quick_gelu" => Some(Gate::QuickGelu),
        "gelu" => Some(Gate::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Some(Gate::GeluTanh),
        "relu" => Some(Gate::Relu),
        other => problems.add(format!(
            "config.json: hidden_act {other:?} is not known; known are quick_gelu, gelu, gelu_new and relu"
        )),
    }
}

/// Refuses models of other images than such in colour.
pub(super) fn check_colours(config: &Config, problems: &mut Problems) {
    if config.count_or("num_channels", 3, problems).is_some_and(|channels| channels != 3) {
        problems.add::<()>("config.json: num_channels is another than 3, and images are sent in colour");
    }
}

fn clip_text(config: &Config, width: usize, problems: &mut Problems) -> Option<TextTower> {
    let tower = tower(config, &CLIP_TEXT, &OF_TEXT, problems);
    let vocabulary = config.count_or("vocab_size", 49_408, problems);
    let positions = config.count_or("max_position_embeddings", 77, problems);
    config.know(&["pad_token_id"]);
    // The first models were published with an id of 2, which no text of theirs ends with.
    let read = match config.token("eos_token_id").unwrap_or(49_407) {
        2 => TextRead::Highest,
        end => TextRead::FirstOf(end),
    };
    Some(TextTower { tower: tower?, vocabulary: vocabulary?, positions: positions?, read, width })
}

fn siglip_text(config: &Config, problems: &mut Problems) -> Option<TextTower> {
    let tower = tower(config, &SIGLIP, &OF_TEXT, problems);
    let vocabulary = config.count_or("vocab_size", 32_000, problems);
    let positions = config.count_or("max_position_embeddings", 64, problems);
    let padding = config.token("pad_token_id").unwrap_or(1);
    let tower = tower?;
    let width = config.count_or("projection_size", tower.hidden, problems)?;
    let read = TextRead::LastOfFilled(padding);
    Some(TextTower { tower, vocabulary: vocabulary?, positions: positions?, read, width })
}

fn image_tower(
    config: &Config,
    defaults: &Defaults,
    names: &'static Names,
    kind: ImageKind,
    usual_patch: usize,
    problems: &mut Problems,
) -> Option<ImageTrunk> {
    let tower = tower(config, defaults, names, problems);
    let patch = config.count_or("patch_size", usual_patch, problems)?;
    check_colours(config, problems);
    let side = config.count_or("image_size", 224, problems)?;
    if side < patch || !side.is_multiple_of(patch) {
        return problems.add(format!("config.json: image_size {side} is no multiple of patch_size {patch}"));
    }
    Some(ImageTrunk::Tower(ImageTower { tower: tower?, size: [side, side], patch, kind }))
}
