//! Gemma: norms whose weights count from 1, scaled embeddings, a GELU gate.

use super::{Activation, Decoder, Norm, Read, Trunk, activation};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "gemma", class: "Gemma", read: Read::Decoder(read) };

/// The width of a head where a configuration doesn't say.
const HEAD_DIM: usize = 256;

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("attention_bias");
    let gemma = shared(config, problems)?;
    Some(Decoder { qkv_bias: bias, output_bias: bias, ..gemma })
}

/// What all generations of Gemma have in common.
pub(super) fn shared(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let head_dim = config.count_or("head_dim", HEAD_DIM, problems);
    // Old files say "gelu" and mean its tanh form, with which all of these were trained.
    let gate = match config.text("hidden_activation").or_else(|| config.text("hidden_act")) {
        None | Some("gelu") => Some(Activation::GeluTanh),
        Some(_) => activation(config, &["hidden_activation", "hidden_act"], problems),
    };
    config.know(&["hidden_act"]);
    let plain = Decoder::plain_gated(config, gate, problems)?;
    let head_dim = head_dim?;
    Some(Decoder {
        head_dim,
        query_scale: (head_dim as f64).powf(-0.5),
        norm: Norm { one_is_zero: true, ..plain.norm },
        embedding_scale: Some((plain.hidden as f64).sqrt()),
        // Embeddings are tied unless the configuration says otherwise.
        tied_embeddings: config.get("tie_word_embeddings").is_none() || plain.tied_embeddings,
        ..plain
    })
}
