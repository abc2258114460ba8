//! InternLM2: Llama under other names, with the projections of each group of heads side by side in one tensor.

use super::{
    Decoder, Read, Trunk,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "internlm2", class: "InternLM2", read: Read::Decoder(read), defaults: &[] };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("bias");
    let plain = Decoder::plain(config, problems)?;
    Some(Decoder { names, qkv_bias: bias, output_bias: bias, ..plain })
}

/// A group is its queries, then its key, then its value.
fn names(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    let (dim, queries) = (trunk.head_dim, trunk.group() * trunk.head_dim);
    let group = queries + 2 * dim;
    let of_groups = |from: usize, to: usize| Piece {
        tensor: format!("model.layers.{layer}.attention.wqkv"),
        rows: (0..trunk.kv_heads).map(|index| index * group + from..index * group + to).collect(),
    };
    let in_layer = match part {
        Part::Embeddings => return Piece::whole("model.tok_embeddings".to_owned()),
        Part::LastNorm => return Piece::whole("model.norm".to_owned()),
        Part::Logits => return Piece::whole("output".to_owned()),
        Part::Queries => return of_groups(0, queries),
        Part::Keys => return of_groups(queries, queries + dim),
        Part::Values => return of_groups(queries + dim, group),
        Part::Drawn => "attention.wo",
        Part::Gate => "feed_forward.w1",
        Part::Up => "feed_forward.w3",
        Part::Down => "feed_forward.w2",
        Part::NormBeforeAttention => "attention_norm",
        Part::NormBeforeMlp => "ffn_norm",
        // What the family doesn't have is asked for by nobody.
        _ => return names::plain(trunk, layer, part),
    };
    Piece::whole(format!("model.layers.{layer}.{in_layer}"))
}
