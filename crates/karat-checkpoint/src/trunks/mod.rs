//! The trunks: what a model computes below its head, family by family.
//!
//! A decoder's file says how its family differs from a [`Decoder`]'s plain form, which is Llama's: norms before attention
//! and MLP, rotary positions, grouped keys and values, a gated MLP. Encoders have forms of their own. [`TRUNKS`] is the
//! list of all that read; those that see are in [`image::IMAGE_TRUNKS`].

pub(crate) mod convnext;
pub(crate) mod deberta;
mod decoder;
pub(crate) mod encoder;
mod gemma;
mod gemma2;
mod gemma3;
mod glm4;
mod gpt_neox;
mod granite;
pub(crate) mod image;
mod internlm2;
mod llama;
mod mistral;
mod mixtral;
pub(crate) mod modernbert;
mod names;
mod nemotron;
mod olmo2;
mod olmo3;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;
pub(crate) mod towers;

use crate::{config::Config, problems::Problems};

pub(crate) use decoder::{Activation, Decoder, Experts, Norm, NormKind, Norms, QueryKeyNorm, Sight};
use decoder::{Wording, activation};
pub(crate) use names::{Expert, Part, Piece};

/// Every family, in the order of messages.
pub(crate) const TRUNKS: &[Trunk] = &[
    llama::TRUNK,
    qwen2::TRUNK,
    qwen3::TRUNK,
    qwen3_moe::TRUNK,
    mistral::TRUNK,
    mixtral::TRUNK,
    gemma::TRUNK,
    gemma2::TRUNK,
    gemma3::TRUNK,
    gemma3::PLAIN_TRUNK,
    gemma3::WRAPPED_TRUNK,
    phi3::TRUNK,
    internlm2::TRUNK,
    olmo2::TRUNK,
    olmo3::TRUNK,
    smollm3::TRUNK,
    glm4::EARLIER_TRUNK,
    glm4::TRUNK,
    gpt_neox::TRUNK,
    gpt_neox::REWARD_TRUNK,
    granite::TRUNK,
    nemotron::TRUNK,
    encoder::BERT_TRUNK,
    encoder::ROBERTA_TRUNK,
    encoder::XLM_ROBERTA_TRUNK,
    encoder::ELECTRA_TRUNK,
    encoder::DISTILBERT_TRUNK,
    deberta::TRUNK,
    modernbert::TRUNK,
];

/// A family of trunks.
pub(crate) struct Trunk {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// How the names of its classes begin.
    pub(crate) class: &'static str,
    /// Reads a configuration of this family.
    pub(crate) read: Read,
    /// What Transformers takes for keys that are missing, where that isn't the same in all families.
    pub(crate) defaults: &'static [(&'static str, u64)],
}

/// How a configuration is read.
pub(crate) enum Read {
    /// Of a model that looks back.
    Decoder(fn(&Config, &mut Problems) -> Option<Decoder>),
    /// Of one that looks both ways.
    Encoder(fn(&Config, &mut Problems) -> Option<encoder::Encoder>),
    /// Of one that looks both ways and has rotary positions.
    Modern(fn(&Config, &mut Problems) -> Option<modernbert::ModernBert>),
}
