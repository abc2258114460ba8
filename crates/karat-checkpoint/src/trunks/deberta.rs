//! DeBERTa-v2 and v3: no absolute positions; each layer attends to content and to distance apart (He et al. 2021).

use super::{
    Read, Trunk,
    encoder::{Classifier, Encoder, Gate, Names, gate},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "deberta-v2", class: "DebertaV2", read: Read::Encoder(read), defaults: &[] };

static NAMES: Names = Names {
    tokens: "deberta.embeddings.word_embeddings",
    positions: "deberta.embeddings.position_embeddings",
    segments: "deberta.embeddings.token_type_embeddings",
    embedding_norm: "deberta.embeddings.LayerNorm",
    projection: "deberta.embeddings.embed_proj",
    layer: "deberta.encoder.layer.",
    query: "attention.self.query_proj",
    key: "attention.self.key_proj",
    value: "attention.self.value_proj",
    drawn: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    norm: "output.LayerNorm",
};

/// How a layer attends to distances.
#[derive(Debug, Clone)]
pub(crate) struct Distances {
    /// The row of each distance from −(positions − 1) to positions − 1.
    pub(crate) rows: Vec<i64>,
    /// How many rows the table of distances has.
    pub(crate) count: usize,
    /// Whether content attends to distance.
    pub(crate) content_to_position: bool,
    /// Whether distance attends to content.
    pub(crate) position_to_content: bool,
    /// Whether distances are projected by the same matrices as content.
    pub(crate) shares_projections: bool,
    /// Whether the table is normed.
    pub(crate) normed: bool,
}

/// What is added behind the first layer: `gate(W * embeddings)`, then normed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolution {
    /// How many neighbouring tokens are taken together, odd.
    pub(crate) size: usize,
    /// How many groups of dimensions are kept apart; divides the width of a state.
    pub(crate) groups: usize,
    /// What follows it.
    pub(crate) gate: Gate,
}

impl Distances {
    /// How many kinds of likeness are added up.
    pub(crate) fn kinds(&self) -> usize {
        1 + usize::from(self.content_to_position) + usize::from(self.position_to_content)
    }
}

fn read(config: &Config, problems: &mut Problems) -> Option<Encoder> {
    let pooler = match config.text("pooler_hidden_act") {
        Some("tanh") => Some(Gate::Tanh),
        _ => gate(config, "pooler_hidden_act", problems),
    };
    config.know(&["pooler_dropout", "pooler_hidden_size", "legacy"]);
    let classifier = Classifier { dense: "pooler.dense", gate: pooler?, last: "classifier" };
    if config.get("position_biased_input").and_then(serde_json::Value::as_bool) != Some(false) {
        problems.add::<()>("config.json: position_biased_input: absolute positions beside distances are not known");
    }
    let convolution = convolution(config, problems);
    if !config.is_on("relative_attention") {
        problems.add::<()>("config.json: relative_attention is off: attention without distances is not known");
    }
    let distances = distances(config, problems);
    let segments = config.get("type_vocab_size").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let plain = Encoder::plain(config, &NAMES, classifier, problems)?;
    Some(Encoder {
        positions: 0,
        segments: usize::try_from(segments).ok()?,
        distances: Some(distances?),
        convolution: convolution?,
        ..plain
    })
}

/// The convolution of embeddings that is added behind the first layer, where there is one.
#[expect(clippy::option_option, reason = "a wrong number is told from no convolution")]
fn convolution(config: &Config, problems: &mut Problems) -> Option<Option<Convolution>> {
    let size = config.get("conv_kernel_size").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let groups = config.count_or("conv_groups", 1, problems);
    let gate = match config.text("conv_act") {
        None | Some("tanh") => Some(Gate::Tanh),
        Some(_) => gate(config, "conv_act", problems),
    };
    if size == 0 {
        return Some(None);
    }
    if size.is_multiple_of(2) {
        return problems.add(format!("config.json: conv_kernel_size {size} is even: states would change their number"));
    }
    Some(Some(Convolution { size: usize::try_from(size).ok()?, groups: groups?, gate: gate? }))
}

fn distances(config: &Config, problems: &mut Problems) -> Option<Distances> {
    let positions = config.count("max_position_embeddings", problems)?;
    // Both are written as -1 where they are left to others.
    let signed =
        |key: &str| config.get(key).and_then(serde_json::Value::as_i64).and_then(|value| usize::try_from(value).ok());
    let longest = signed("max_relative_positions").filter(|longest| *longest > 0).unwrap_or(positions);
    let buckets = signed("position_buckets").filter(|buckets| *buckets > 0);
    let span = buckets.unwrap_or(longest);
    let kinds: Vec<String> = match config.get("pos_att_type") {
        Some(serde_json::Value::String(kinds)) => kinds.split('|').map(str::to_owned).collect(),
        Some(serde_json::Value::Array(kinds)) => {
            kinds.iter().filter_map(serde_json::Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    if let Some(odd) = kinds.iter().find(|kind| *kind != "c2p" && *kind != "p2c") {
        problems.add::<()>(format!("config.json: pos_att_type {odd:?} is not known; known are c2p and p2c"));
    }
    let reach = i64::try_from(positions).ok()? - 1;
    let wide = i64::try_from(span).ok()?;
    let row = |distance: i64| {
        let place = buckets.map_or(distance, |buckets| bucket(distance, buckets, longest));
        (place + wide).clamp(0, 2 * wide - 1)
    };
    Some(Distances {
        rows: (-reach..=reach).map(row).collect(),
        count: 2 * span,
        content_to_position: kinds.iter().any(|kind| kind == "c2p"),
        position_to_content: kinds.iter().any(|kind| kind == "p2c"),
        shares_projections: config.is_on("share_att_key"),
        normed: config.text("norm_rel_ebd").is_some_and(|norms| norms.contains("layer_norm")),
    })
}

/// Near distances are told apart, far ones by their logarithm; in 32 bits, as the reference rounds them.
#[expect(clippy::cast_possible_truncation, reason = "distances are small whole numbers")]
fn bucket(distance: i64, buckets: usize, longest: usize) -> i64 {
    let middle = buckets as i64 / 2;
    if distance.abs() <= middle {
        return distance;
    }
    let (middle_f, longest) = (middle as f32, longest as f32);
    let log = (distance.abs() as f32 / middle_f).ln() / ((longest - 1.0) / middle_f).ln() * (middle_f - 1.0);
    (log.ceil() as i64 + middle) * distance.signum()
}
