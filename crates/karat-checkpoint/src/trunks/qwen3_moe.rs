//! Qwen3 with experts in place of the MLP.

use serde_json::Value;

use super::{Decoder, Experts, QueryKeyNorm, Read, Trunk, qwen2::window};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "qwen3_moe",
    class: "Qwen3Moe",
    read: Read::Decoder(read),
    defaults: &[
        ("decoder_sparse_step", 1),
        ("moe_intermediate_size", 768),
        ("num_experts", 128),
        ("num_experts_per_tok", 8),
        ("num_key_value_heads", 4),
        ("sliding_window", 4096),
    ],
};

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    config.know(&["output_router_logits", "router_aux_loss_coef"]);
    let bias = config.is_on("attention_bias");
    // Newer files name the same number as Mixtral's do.
    let key = if config.get("num_local_experts").is_some() { "num_local_experts" } else { "num_experts" };
    config.know(&["num_experts"]);
    let (count, used) = (config.count(key, problems), config.count("num_experts_per_tok", problems));
    let intermediate = config.count("moe_intermediate_size", problems);
    let step = config.count("decoder_sparse_step", problems);
    let normalised = config.is_on("norm_topk_prob");
    let without = config.get("mlp_only_layers").and_then(Value::as_array).cloned().unwrap_or_default();
    let window = window(config, problems);
    let plain = Decoder::plain(config, problems)?;
    let step = step?;
    let has_experts = |layer: &usize| (layer + 1).is_multiple_of(step) && !without.contains(&Value::from(*layer));
    let layers = (0..plain.layers).filter(has_experts).collect();
    let experts = Experts { count: count?, used: used?, intermediate: intermediate?, normalised, layers };
    let normed = Decoder { query_key_norm: QueryKeyNorm::PerHead, qkv_bias: bias, output_bias: bias, ..plain };
    Some(Decoder { experts: Some(experts.fitting(problems)?), ..normed.within_everywhere(window?) })
}
