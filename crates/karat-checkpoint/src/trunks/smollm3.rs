//! SmolLM3: Llama without positions in every fourth layer, which may have a window.

use super::{Decoder, Read, Trunk, qwen2::window};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "smollm3",
    class: "SmolLM3",
    read: Read::Decoder(read),
    defaults: &[("pad_token_id", 128_004), ("rope_theta", 2_000_000)],
};

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let (bias, mlp_bias) = (config.is_on("attention_bias"), config.is_on("mlp_bias"));
    let interval = config.count_or("no_rope_layer_interval", 4, problems);
    // Whatever its name says, 1 means that the layer has positions.
    let rotated = config.get("no_rope_layers").and_then(|layers| layers.as_array());
    let rotated = rotated.map(|layers| layers.iter().map(|layer| layer.as_u64() == Some(1)).collect::<Vec<_>>());
    let window = window(config, problems);
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
    let mut trunk = Decoder { qkv_bias: bias, output_bias: bias, mlp_bias, ..plain };
    for (sight, rotated) in trunk.sights.iter_mut().zip(&rotated) {
        sight.rope = sight.rope.filter(|_| *rotated);
    }
    trunk.within(window?, config, problems, |layer| !rotated[layer])
}
