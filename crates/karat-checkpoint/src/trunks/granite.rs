//! Granite: Llama with factors on embeddings, likenesses, what layers add, and logits.

use super::{Decoder, Read, Trunk};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "granite", class: "Granite", read: Read::Decoder(read), defaults: &[] };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let (bias, mlp_bias) = (config.is_on("attention_bias"), config.is_on("mlp_bias"));
    let mut factor = |key| config.positive_or(key, 1.0, problems);
    let (embeddings, likenesses) = (factor("embedding_multiplier"), factor("attention_multiplier"));
    let (residual, logits) = (factor("residual_multiplier"), factor("logits_scaling"));
    let plain = Decoder::plain(config, problems)?;
    Some(Decoder {
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias,
        query_scale: likenesses?,
        embedding_scale: embeddings,
        residual_scale: residual,
        logit_scale: Some(logits?.recip()),
        ..plain
    })
}
