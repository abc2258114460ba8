//! What families call their tensors, and which rows of a tensor they keep what in.

use std::ops::Range;

use super::Decoder;

/// A part of a trunk that has weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The table of embeddings.
    Embeddings,
    /// The projection of queries.
    Queries,
    /// The projection of keys.
    Keys,
    /// The projection of values.
    Values,
    /// The norm of queries.
    QueryNorm,
    /// The norm of keys.
    KeyNorm,
    /// The projection of what attention drew.
    Drawn,
    /// The norm before attention.
    NormBeforeAttention,
    /// The norm after attention.
    NormAfterAttention,
    /// The norm before the MLP.
    NormBeforeMlp,
    /// The norm after the MLP.
    NormAfterMlp,
    /// The MLP's gate.
    Gate,
    /// The MLP's inner projection.
    Up,
    /// The MLP's outer projection.
    Down,
    /// What chooses experts.
    Router,
    /// A part of the expert of that number.
    Expert(usize, Expert),
    /// The norm after the last layer.
    LastNorm,
    /// A language model's own head, where it isn't the table of embeddings.
    Logits,
}

/// A part of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expert {
    /// Its gate.
    Gate,
    /// Its inner projection.
    Up,
    /// Its outer projection.
    Down,
}

/// Where a part's weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The tensor's name without `.weight` or `.bias`.
    pub(crate) tensor: String,
    /// The rows of it, in order; all where there are none.
    pub(crate) rows: Vec<Range<usize>>,
}

impl Piece {
    /// Some rows of a tensor.
    pub(crate) fn part(tensor: String, rows: Range<usize>) -> Self {
        Self { tensor, rows: [rows].into() }
    }

    /// All rows of a tensor.
    pub(crate) fn whole(tensor: String) -> Self {
        Self { tensor, rows: Vec::new() }
    }

    /// The same rows where those of each of `heads` heads stand in another order.
    pub(crate) fn reordered(self, heads: usize, order: &[usize]) -> Self {
        let all = std::iter::once(0..heads * order.len()).filter(|_| self.rows.is_empty());
        let found: Vec<usize> = self.rows.iter().cloned().chain(all).flatten().collect();
        let mut rows: Vec<Range<usize>> = Vec::new();
        for row in found.chunks(order.len()).flat_map(|head| order.iter().filter_map(|place| head.get(*place))) {
            match rows.last_mut() {
                Some(last) if last.end == *row => last.end += 1,
                _ => rows.push(*row..row + 1),
            }
        }
        Self { tensor: self.tensor, rows }
    }
}

/// How a family names the parts of a layer.
pub(crate) type Names = fn(&Decoder, usize, Part) -> Piece;

/// Llama's names, which most families share.
pub(super) fn plain(_: &Decoder, layer: usize, part: Part) -> Piece {
    let in_layer = match part {
        Part::Embeddings => return Piece::whole("model.embed_tokens".to_owned()),
        Part::LastNorm => return Piece::whole("model.norm".to_owned()),
        Part::Logits => return Piece::whole("lm_head".to_owned()),
        Part::Queries => "self_attn.q_proj",
        Part::Keys => "self_attn.k_proj",
        Part::Values => "self_attn.v_proj",
        Part::QueryNorm => "self_attn.q_norm",
        Part::KeyNorm => "self_attn.k_norm",
        Part::Drawn => "self_attn.o_proj",
        Part::NormBeforeAttention => "input_layernorm",
        // Where there are norms after attention and MLP as well, the one before the MLP has another name.
        Part::NormAfterAttention | Part::NormBeforeMlp => "post_attention_layernorm",
        Part::NormAfterMlp => "post_feedforward_layernorm",
        Part::Gate => "mlp.gate_proj",
        Part::Up => "mlp.up_proj",
        Part::Down => "mlp.down_proj",
        Part::Router => "mlp.gate",
        Part::Expert(expert, part) => {
            let part = match part {
                Expert::Gate => "gate",
                Expert::Up => "up",
                Expert::Down => "down",
            };
            return Piece::whole(format!("model.layers.{layer}.mlp.experts.{expert}.{part}_proj"));
        }
    };
    Piece::whole(format!("model.layers.{layer}.{in_layer}"))
}
