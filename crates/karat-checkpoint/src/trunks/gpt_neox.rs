//! GPT-NeoX, which Pythia is too: attention and MLP read the same state, norms and projections have biases, and a
//! quarter of each head is turned.

use super::{
    Decoder, Norm, NormKind, Norms, Read, Trunk, Wording,
    decoder::activation,
    names::{self, Part, Piece},
};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "gpt_neox", class: "GPTNeoX", read: Read::Decoder(read), defaults: &[] };
/// Open Assistant's reward models.
pub(super) const REWARD_TRUNK: Trunk = Trunk { model_type: "gpt_neox_reward_model", ..TRUNK };

/// The share of a head that is turned where a configuration doesn't say.
const TURNED: f64 = 0.25;

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let bias = config.get("attention_bias").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let parallel = config.get("use_parallel_residual").and_then(serde_json::Value::as_bool).unwrap_or(true);
    // Open Assistant's: the mean of all tokens' rewards is another number than the last one's.
    if config.text("pooling").is_some_and(|pooling| pooling != "last") {
        problems.add::<()>("config.json: pooling other than \"last\": a reward is read at the last token alone");
    }
    let turned = config.positive_or("rotary_pct", TURNED, problems);
    let activation = match config.text("hidden_act") {
        None => Some(super::Activation::Gelu),
        Some(_) => activation(config, &["hidden_act"], problems),
    };
    let wording =
        Wording { activation, epsilon: ("layer_norm_eps", 1e-5), turned, theta: "rotary_emb_base", ..Wording::LLAMA };
    let plain = Decoder::worded(config, wording, problems)?;
    Some(Decoder {
        norm: Norm { kind: NormKind::Layer { bias: true }, ..plain.norm },
        norms: if parallel { Norms::Parallel } else { Norms::Before },
        gated: false,
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: true,
        names,
        ..plain
    })
}

/// Each head is its query, then its key, then its value.
fn names(trunk: &Decoder, layer: usize, part: Part) -> Piece {
    let dim = trunk.head_dim;
    let of_heads = |place: usize| Piece {
        tensor: format!("gpt_neox.layers.{layer}.attention.query_key_value"),
        rows: (0..trunk.heads).map(|head| (3 * head + place) * dim..(3 * head + place + 1) * dim).collect(),
    };
    let in_layer = match part {
        Part::Embeddings => return Piece::whole("gpt_neox.embed_in".to_owned()),
        Part::LastNorm => return Piece::whole("gpt_neox.final_layer_norm".to_owned()),
        Part::Logits => return Piece::whole("embed_out".to_owned()),
        Part::Queries => return of_heads(0),
        Part::Keys => return of_heads(1),
        Part::Values => return of_heads(2),
        Part::Drawn => "attention.dense",
        Part::NormBeforeAttention => "input_layernorm",
        Part::Gate | Part::Up => "mlp.dense_h_to_4h",
        Part::Down => "mlp.dense_4h_to_h",
        Part::NormBeforeMlp => "post_attention_layernorm",
        // What the family doesn't have is asked for by nobody.
        _ => return names::plain(trunk, layer, part),
    };
    Piece::whole(format!("gpt_neox.layers.{layer}.{in_layer}"))
}
