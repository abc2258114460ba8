//! Qwen3: queries and keys are normed head by head; late layers may have a window.

use super::{Decoder, QueryKeyNorm, Read, Trunk, qwen2::Window};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "qwen3", class: "Qwen3", read: Read::Decoder(read) };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("attention_bias");
    let window = Window::read(config, problems);
    let plain = Decoder::plain(config, problems)?;
    Some(Decoder { query_key_norm: QueryKeyNorm::PerHead, qkv_bias: bias, output_bias: bias, ..window.bound(plain) })
}
