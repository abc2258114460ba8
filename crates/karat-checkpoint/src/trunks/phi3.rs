//! Phi-3: Llama with queries, keys and values in one tensor, and gate and inner projection in another.

use super::{
    Decoder, Read, Trunk,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "phi3", class: "Phi3", read: Read::Decoder(read) };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    config.know(&["original_max_position_embeddings", "attention_bias"]);
    let window = config.get("sliding_window").and_then(|_| config.count("sliding_window", problems));
    let plain = Decoder::plain(config, problems)?;
    Some(Decoder { names, ..plain.within_window(window) })
}

fn names(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    let (queries, keys) = (trunk.heads * trunk.head_dim, trunk.kv_heads * trunk.head_dim);
    let (tensor, rows) = match part {
        Part::Queries => ("self_attn.qkv_proj", 0..queries),
        Part::Keys => ("self_attn.qkv_proj", queries..queries + keys),
        Part::Values => ("self_attn.qkv_proj", queries + keys..queries + 2 * keys),
        Part::Gate => ("mlp.gate_up_proj", 0..trunk.intermediate),
        Part::Up => ("mlp.gate_up_proj", trunk.intermediate..2 * trunk.intermediate),
        _ => return names::plain(trunk, layer, part),
    };
    Piece::part(format!("model.layers.{layer}.{tensor}"), rows)
}
