//! GLM-4: norms around attention and MLP, and half of each head turned, neighbours in pairs.

use super::{
    Decoder, Norms, Read, Trunk, Wording,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems, rope::Rotary};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "glm4",
    class: "Glm4",
    read: Read::Decoder(read),
    defaults: &[("head_dim", 128), ("num_key_value_heads", 2), ("pad_token_id", 151_329)],
};
/// The generation before, which has norms before attention and MLP alone.
pub(super) const EARLIER_TRUNK: Trunk =
    Trunk { model_type: "glm", class: "Glm", read: Read::Decoder(read_earlier), ..TRUNK };

/// The share of a head that is turned where a configuration doesn't say.
const TURNED: f64 = 0.5;

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    read_earlier(config, problems).map(|earlier| Decoder { norms: Norms::Around, names, ..earlier })
}

fn read_earlier(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.get("attention_bias").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let plain = Decoder::worded(
        config,
        Wording { epsilon: ("rms_norm_eps", 1.5625e-7), turned: Some(TURNED), ..Wording::LLAMA },
        problems,
    )?;
    let rotary = Rotary { neighbours: true, ..plain.rotary };
    Some(Decoder { rotary, qkv_bias: bias, names: names_before, ..plain })
}

fn names(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    match part {
        Part::NormAfterAttention => Piece::whole(format!("model.layers.{layer}.post_self_attn_layernorm")),
        Part::NormAfterMlp => Piece::whole(format!("model.layers.{layer}.post_mlp_layernorm")),
        _ => names_before(trunk, layer, part),
    }
}

fn names_before(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    let rows = match part {
        Part::Gate => 0..trunk.intermediate,
        Part::Up => trunk.intermediate..2 * trunk.intermediate,
        _ => return names::plain(trunk, layer, part),
    };
    Piece::part(format!("model.layers.{layer}.mlp.gate_up_proj"), rows)
}
