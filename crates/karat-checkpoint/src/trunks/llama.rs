//! Llama: the plain form, with biases where the configuration says so.

use super::{Decoder, Read, Trunk};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "llama", class: "Llama", read: Read::Decoder(read), defaults: &[] };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let (bias, mlp_bias) = (config.is_on("attention_bias"), config.is_on("mlp_bias"));
    let plain = Decoder::plain(config, problems)?;
    Some(Decoder { qkv_bias: bias, output_bias: bias, mlp_bias, ..plain })
}
