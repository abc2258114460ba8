//! Mixtral: Mistral with experts in place of the MLP.

use super::{
    Decoder, Expert, Experts, Read, Trunk, Wording,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "mixtral",
    class: "Mixtral",
    read: Read::Decoder(read),
    defaults: &[
        ("num_experts_per_tok", 2),
        ("num_key_value_heads", 8),
        ("num_local_experts", 8),
        ("rope_theta", 1_000_000),
    ],
};

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    config.know(&["output_router_logits", "router_aux_loss_coef", "router_jitter_noise"]);
    let (count, used) = (config.count("num_local_experts", problems), config.count("num_experts_per_tok", problems));
    let window = config.window("sliding_window", problems);
    let wording = Wording { epsilon: ("rms_norm_eps", 1e-5), ..Wording::LLAMA };
    let plain = Decoder::worded(config, wording, problems)?;
    let (intermediate, layers) = (plain.intermediate, (0..plain.layers).collect());
    let experts = Experts { count: count?, used: used?, intermediate, normalised: true, layers };
    Some(Decoder { experts: Some(experts.fitting(problems)?), names, ..plain.within_everywhere(window?) })
}

fn names(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    let in_layer = match part {
        Part::Router => "gate".to_owned(),
        Part::Expert(expert, Expert::Gate) => format!("experts.{expert}.w1"),
        Part::Expert(expert, Expert::Up) => format!("experts.{expert}.w3"),
        Part::Expert(expert, Expert::Down) => format!("experts.{expert}.w2"),
        _ => return names::plain(trunk, layer, part),
    };
    Piece::whole(format!("model.layers.{layer}.block_sparse_moe.{in_layer}"))
}
