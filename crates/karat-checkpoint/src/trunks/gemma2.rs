//! Gemma 2: Gemma with norms after attention and MLP, bounded likenesses, and a window in every other layer.

use super::{
    Decoder, Norms, Read, Trunk, Wording, gemma,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "gemma2", class: "Gemma2", read: Read::Decoder(read), defaults: DEFAULTS };

const DEFAULTS: &[(&str, u64)] =
    &[("head_dim", 256), ("pad_token_id", 0), ("query_pre_attn_scalar", 256), ("sliding_window", 4096)];

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let gemma = normed_around(config, Wording::LLAMA, problems)?;
    let window = config.window("sliding_window", problems)?;
    config.know(&["sliding_window_size"]);
    gemma.within(window, config, problems, |layer| layer % 2 == 0)
}

/// What the generations from the second on have in common.
pub(super) fn normed_around(config: &Config, wording: Wording, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("attention_bias");
    if config.is_on("use_bidirectional_attention") {
        problems.add::<()>("config.json: use_bidirectional_attention: a model that looks ahead is not a decoder");
    }
    let scale = config.positive_or("query_pre_attn_scalar", 256.0, problems);
    config.know(&["sliding_window"]);
    let cap = |key| config.number(key).filter(|cap| *cap > 0.0);
    let (attention_cap, logit_cap) = (cap("attn_logit_softcapping"), cap("final_logit_softcapping"));
    let gemma = gemma::shared(config, wording, problems)?;
    Some(Decoder {
        qkv_bias: bias,
        output_bias: bias,
        norms: Norms::Around,
        names,
        query_scale: scale?.powf(-0.5),
        attention_cap,
        logit_cap,
        ..gemma
    })
}

fn names(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    match part {
        Part::NormBeforeMlp => Piece::whole(format!("model.layers.{layer}.pre_feedforward_layernorm")),
        _ => names::plain(trunk, layer, part),
    }
}
