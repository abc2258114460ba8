//! Gemma 3: five layers with a window to one without, each kind with positions of its own, and normed queries and keys.

use super::{Decoder, QueryKeyNorm, Read, Trunk, Wording, gemma2::normed_around};
use crate::{config::Config, problems::Problems, rope::Rope};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "gemma3_text", class: "Gemma3Text", read: Read::Decoder(read), defaults: DEFAULTS };
/// The same under the name that a language model has.
pub(super) const PLAIN_TRUNK: Trunk = Trunk { class: "Gemma3", ..TRUNK };
/// The model that sees images too, of which the part that reads is used.
pub(super) const WRAPPED_TRUNK: Trunk =
    Trunk { model_type: "gemma3", class: "Gemma3", read: Read::Decoder(read_wrapped), defaults: DEFAULTS };

/// The released models' files leave out what is the same as here.
const DEFAULTS: &[(&str, u64)] = &[
    ("head_dim", 256),
    ("hidden_size", 2304),
    ("intermediate_size", 9216),
    ("max_position_embeddings", 131_072),
    ("num_attention_heads", 8),
    ("num_hidden_layers", 26),
    ("num_key_value_heads", 4),
    ("pad_token_id", 0),
    ("query_pre_attn_scalar", 256),
    ("sliding_window", 4096),
    ("vocab_size", 262_208),
];
const THETA: f64 = 1_000_000.0;
const LOCAL_THETA: f64 = 10_000.0;

fn read_wrapped(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    // What concerns images alone.
    config.know(&[
        "boi_token_id",
        "boi_token_index",
        "eoi_token_id",
        "eoi_token_index",
        "image_token_id",
        "image_token_index",
        "mm_tokens_per_image",
        "vision_config",
    ]);
    read(config, problems)
}

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let pattern = config.count_or("sliding_window_pattern", 6, problems);
    let everywhere = config.positive_or("rope_theta", THETA, problems);
    let nearby = config.positive_or("rope_local_base_freq", LOCAL_THETA, problems);
    let thetas = [everywhere.unwrap_or(THETA), nearby.unwrap_or(LOCAL_THETA)];
    let wording = Wording { ropes: Some(Rope::by_kind(config, thetas, problems)), ..Wording::LLAMA };
    let gemma = normed_around(config, wording, problems)?;
    let (window, pattern) = (config.window("sliding_window", problems)?, pattern?);
    let trunk = Decoder { query_key_norm: QueryKeyNorm::PerHead, ..gemma };
    trunk.within(window, config, problems, |layer| (layer + 1) % pattern != 0)
}
