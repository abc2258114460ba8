//! OLMo 2: norms stand after attention and MLP alone, and those of queries and keys span all heads.

use super::{Decoder, Norms, QueryKeyNorm, Read, Trunk, Wording};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "olmo2", class: "Olmo2", read: Read::Decoder(read), defaults: &[("pad_token_id", 1)] };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    worded(config, Wording::LLAMA, problems)
}

/// What the generations from the second on have in common.
pub(super) fn worded(config: &Config, wording: Wording, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.is_on("attention_bias");
    let wording = Wording { epsilon: ("rms_norm_eps", 1e-5), ..wording };
    let plain = Decoder::worded(config, wording, problems)?;
    Some(Decoder {
        qkv_bias: bias,
        output_bias: bias,
        norms: Norms::After,
        query_key_norm: QueryKeyNorm::AcrossHeads,
        ..plain
    })
}
