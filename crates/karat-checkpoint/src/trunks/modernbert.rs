//! ModernBERT: norms before attention and MLP, rotary positions, and two of three layers that look at their surroundings
//! alone (Warner et al. 2024).

use super::{
    Read, Trunk,
    encoder::{Gate, gate},
};
use crate::{
    config::{Config, positive},
    problems::Problems,
    rope::Rope,
};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "modernbert", class: "ModernBert", read: Read::Modern(read), defaults: &[] };

/// The measures and variants of a ModernBERT.
#[derive(Debug, Clone)]
pub(crate) struct ModernBert {
    /// The width of a state.
    pub(crate) hidden: usize,
    /// How many layers.
    pub(crate) layers: usize,
    /// How many heads a layer; divides `hidden`.
    pub(crate) heads: usize,
    /// The width of the MLP.
    pub(crate) intermediate: usize,
    /// How many tokens have an embedding.
    pub(crate) vocabulary: usize,
    /// The most positions.
    pub(crate) context: usize,
    /// What keeps a norm's root from 0.
    pub(crate) epsilon: f64,
    /// Whether norms have biases.
    pub(crate) norm_bias: bool,
    /// Whether projections of attention have biases.
    pub(crate) attention_bias: bool,
    /// Whether those of the MLP have.
    pub(crate) mlp_bias: bool,
    /// Whether the classifier's first matrix has one.
    pub(crate) classifier_bias: bool,
    /// The positions of layers that look everywhere, and of those that don't.
    pub(crate) ropes: [Rope; 2],
    /// The layers that look everywhere.
    pub(crate) global: Vec<bool>,
    /// How far to each side the others look.
    pub(crate) reach: usize,
    /// The MLP's activation.
    pub(crate) activation: Gate,
    /// The classifier's activation.
    pub(crate) classifier_activation: Gate,
    /// Whether the classifier reads the mean of all states, not the first token's.
    pub(crate) reads_mean: bool,
}

fn read(config: &Config, problems: &mut Problems) -> Option<ModernBert> {
    config.know(&[
        "attention_dropout",
        "classifier_dropout",
        "decoder_bias",
        "deterministic_flash_attn",
        "embedding_dropout",
        "initializer_cutoff_factor",
        "mlp_dropout",
        "reference_compile",
        "repad_logits_with_grad",
        "sparse_pred_ignore_index",
        "sparse_prediction",
    ]);
    let hidden = config.count("hidden_size", problems);
    let layers = config.layers("num_hidden_layers", problems);
    let heads = config.count("num_attention_heads", problems);
    let intermediate = config.count("intermediate_size", problems);
    let vocabulary = config.count("vocab_size", problems);
    let context = config.count("max_position_embeddings", problems);
    let epsilon = config.positive_or("norm_eps", 1e-5, problems);
    let every = config.count_or("global_attn_every_n_layers", 3, problems);
    let local = config.count_or("local_attention", 128, problems);
    let activation = gate(config, "hidden_activation", problems);
    let classifier_activation = gate(config, "classifier_activation", problems);
    let pooling = config.text("classifier_pooling").unwrap_or("cls");
    if pooling != "cls" && pooling != "mean" {
        problems.add::<()>(format!("config.json: classifier_pooling {pooling:?} is not known; known are cls and mean"));
    }
    let by_type = config.get("rope_parameters");
    let mut rope = |kind: &str, older: &str, theta: f64| {
        let table = by_type.and_then(|table| table.get(kind));
        let theta = match table.and_then(|table| table.get("rope_theta")) {
            Some(theta) => positive("rope_theta", theta, problems),
            None => config.positive_or(older, theta, problems),
        };
        config.know(&[older]);
        let scaled = table.and_then(|table| table.get("rope_type")?.as_str()).is_some_and(|kind| kind != "default");
        if scaled {
            problems.add::<()>("config.json: a scaled rope is not known of this architecture");
        }
        theta.map(Rope::plain)
    };
    let ropes = [
        rope("full_attention", "global_rope_theta", 160_000.0),
        rope("sliding_attention", "local_rope_theta", 10_000.0),
    ];
    let kinds = config.get("layer_types").and_then(|kinds| kinds.as_array());
    let (hidden, heads, layers, every) = (hidden?, heads?, layers?, every?);
    if hidden % heads != 0 || !(hidden / heads).is_multiple_of(2) {
        return problems.add(format!("config.json: {hidden} can't be divided into {heads} heads of an even width"));
    }
    let global = match kinds {
        Some(kinds) => kinds.iter().map(|kind| kind == "full_attention").collect(),
        None => (0..layers).map(|layer| layer % every == 0).collect::<Vec<_>>(),
    };
    if global.len() != layers {
        return problems.add(format!("config.json: layer_types has {} entries for {layers} layers", global.len()));
    }
    let [everywhere, nearby] = ropes;
    Some(ModernBert {
        hidden,
        layers,
        heads,
        intermediate: intermediate?,
        vocabulary: vocabulary?,
        context: context?,
        epsilon: epsilon?,
        norm_bias: config.is_on("norm_bias"),
        attention_bias: config.is_on("attention_bias"),
        mlp_bias: config.is_on("mlp_bias"),
        classifier_bias: config.is_on("classifier_bias"),
        ropes: [everywhere?, nearby?],
        global,
        reach: local? / 2,
        activation: activation?,
        classifier_activation: classifier_activation?,
        reads_mean: pooling == "mean",
    })
}
