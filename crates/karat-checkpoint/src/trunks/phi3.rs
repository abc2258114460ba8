//! Phi-3: Llama with queries, keys and values in one tensor, and gate and inner projection in another.

use super::{
    Decoder, Read, Trunk, Wording,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "phi3",
    class: "Phi3",
    read: Read::Decoder(read),
    defaults: &[("pad_token_id", 32_000), ("original_max_position_embeddings", 4096)],
};

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    config.know(&["attention_bias"]);
    let window = config.window("sliding_window", problems);
    let plain = Decoder::worded(
        config,
        Wording { epsilon: ("rms_norm_eps", 1e-5), turned: Some(1.0), ..Wording::LLAMA },
        problems,
    )?;
    Some(Decoder { names, ..plain.within_everywhere(window?) })
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
