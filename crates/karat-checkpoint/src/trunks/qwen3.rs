//! Qwen3: queries and keys are normed head by head; late layers may have a window.

use super::{
    Decoder, QueryKeyNorm, Read, Trunk,
    qwen2::{late, window},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "qwen3",
    class: "Qwen3",
    read: Read::Decoder(read),
    defaults: &[("head_dim", 128), ("sliding_window", 4096)],
};

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("attention_bias");
    let window = window(config, problems);
    let plain = Decoder::plain(config, problems)?;
    let normed = Decoder { query_key_norm: QueryKeyNorm::PerHead, qkv_bias: bias, output_bias: bias, ..plain };
    late(normed, window?, config, problems)
}
