//! Nemotron, which Minitron is too: norms of LayerNorm's kind whose weights count from 1, an MLP without a gate, and half
//! of each head turned.

use super::{Activation, Decoder, Norm, NormKind, Read, Trunk, Wording, activation};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "nemotron", class: "Nemotron", read: Read::Decoder(read), defaults: &[] };

/// The share of a head that is turned where a configuration doesn't say.
const TURNED: f64 = 0.5;

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let (bias, mlp_bias) = (config.is_on("attention_bias"), config.is_on("mlp_bias"));
    let activation = match config.text("hidden_act") {
        None => Some(Activation::ReluSquared),
        Some(_) => activation(config, &["hidden_act"], problems),
    };
    let wording = Wording { activation, epsilon: ("norm_eps", 1e-5), turned: Some(TURNED), ..Wording::LLAMA };
    let plain = Decoder::worded(config, wording, problems)?;
    Some(Decoder {
        norm: Norm { one_is_zero: true, kind: NormKind::Layer { bias: true }, ..plain.norm },
        gated: false,
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias,
        ..plain
    })
}
