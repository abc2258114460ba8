//! Gemma: norms whose weights count from 1, scaled embeddings, a GELU gate.

use super::{Activation, Decoder, Norm, Read, Trunk, Wording, activation};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "gemma", class: "Gemma", read: Read::Decoder(read), defaults: DEFAULTS };

pub(super) const DEFAULTS: &[(&str, u64)] = &[("head_dim", 256), ("pad_token_id", 0)];

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("attention_bias");
    let gemma = shared(config, Wording::LLAMA, problems)?;
    Some(Decoder { qkv_bias: bias, output_bias: bias, ..gemma })
}

/// What all generations of Gemma have in common.
pub(super) fn shared(config: &Config, wording: Wording, problems: &mut Problems) -> Option<Decoder> {
    // Old files say "gelu" and mean its tanh form, with which all of these were trained.
    let gate = match config.text("hidden_activation").or_else(|| config.text("hidden_act")) {
        None | Some("gelu") => Some(Activation::GeluTanh),
        Some(_) => activation(config, &["hidden_activation", "hidden_act"], problems),
    };
    config.know(&["hidden_act"]);
    // A gate that isn't known was told above.
    let wording = Wording { activation: gate.or(Some(Activation::GeluTanh)), ..wording };
    let plain = Decoder::worded(config, wording, problems)?;
    Some(Decoder {
        norm: Norm { one_is_zero: true, ..plain.norm },
        embedding_scale: Some((plain.hidden as f64).sqrt()),
        // Embeddings are tied unless the configuration says otherwise.
        tied_embeddings: config.get("tie_word_embeddings").is_none() || plain.tied_embeddings,
        ..plain
    })
}
