//! SmolLM3: Llama without positions in every fourth layer.

use super::{Decoder, Read, Trunk, qwen2::Window};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "smollm3", class: "SmolLM3", read: Read::Decoder(read) };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let (bias, mlp_bias) = (config.is_on("attention_bias"), config.is_on("mlp_bias"));
    let interval = config.count_or("no_rope_layer_interval", 4, problems);
    // Whatever its name says, 1 means that the layer has positions.
    let rotated = config.get("no_rope_layers").and_then(|layers| layers.as_array());
    let rotated = rotated.map(|layers| layers.iter().map(|layer| layer.as_u64() == Some(1)).collect::<Vec<_>>());
    let window = Window::read(config, problems);
    let plain = Decoder::plain(config, problems)?;
    let interval = interval?;
    let rotated = rotated.unwrap_or_else(|| (1..=plain.layers).map(|layer| layer % interval != 0).collect());
    if rotated.len() != plain.layers {
        return problems.add(format!(
            "config.json: no_rope_layers has {} entries for {} layers",
            rotated.len(),
            plain.layers
        ));
    }
    let unrotated = (0..plain.layers).filter(|layer| !rotated[*layer]).collect();
    Some(Decoder { qkv_bias: bias, output_bias: bias, mlp_bias, unrotated, ..window.bound(plain) })
}
