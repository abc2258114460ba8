//! The heads: which tensors make rewards of the trunk's last state.
//!
//! A head is found by its tensors, under any of the names in use; a checkpoint with none or with two is refused. Each
//! file here knows one arithmetic; [`HEADS`] is the list of them.

mod language_model;
mod linear;
mod mlp;

use crate::{config::Config, graphs::Nodes, problems::Problems, trunks::Decoder, weights::Weights};

/// Every head that a checkpoint can carry beside a language model's own.
const HEADS: &[fn(&Weights, &Config) -> Vec<Head>] = &[linear::find, mlp::find];

/// A head, with the names of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// `W h + b`.
    Linear(linear::Linear),
    /// `W₂ relu(W₁ h + b₁) + b₂`.
    Mlp(mlp::Mlp),
    /// The logits of all tokens.
    LanguageModel,
}

/// What a checkpoint's class says that it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A score for a whole sample.
    Sequence,
    /// A score for each token or step.
    Token,
    /// Logits of the next token.
    LanguageModel,
}

impl Head {
    /// The head that a checkpoint of this kind has.
    pub(crate) fn find(
        kind: Kind,
        weights: &Weights,
        config: &Config,
        problems: &mut Problems,
    ) -> Option<(Kind, Self)> {
        let found: Vec<Self> = HEADS.iter().flat_map(|find| find(weights, config)).collect();
        match (found.as_slice(), kind) {
            ([], Kind::LanguageModel) => Some((kind, Self::LanguageModel)),
            // A value head beside a language model is what trainers save that train one.
            ([head], Kind::LanguageModel) => Some((Kind::Sequence, head.clone())),
            ([head], _) => Some((kind, head.clone())),
            ([], _) => problems.add(format!(
                "there is no reward head (looked for {} and value_head.safetensors); this folder holds a base or chat model",
                linear::NAMES.join(", ")
            )),
            (several, _) => {
                let names: Vec<&str> = several.iter().map(Self::name).collect();
                problems.add(format!("there are {} heads ({}); keep one", names.len(), names.join(", ")))
            }
        }
    }

    /// What the tensors' names begin with.
    fn name(&self) -> &str {
        match self {
            Self::Linear(linear) => &linear.name,
            Self::Mlp(mlp) => &mlp.first,
            Self::LanguageModel => "lm_head",
        }
    }

    /// How many numbers it gives.
    pub(crate) fn width(&self, trunk: &Decoder, weights: &Weights) -> usize {
        let last = match self {
            Self::Linear(linear) => &linear.name,
            Self::Mlp(mlp) => &mlp.last,
            Self::LanguageModel => return trunk.vocabulary,
        };
        weights.shape(&format!("{last}.weight")).and_then(|shape| shape.first().copied()).unwrap_or(0)
    }

    /// The graph's output that it gives.
    pub(crate) fn output(&self) -> &'static str {
        match self {
            Self::Linear(_) | Self::Mlp(_) => "scores",
            Self::LanguageModel => "logits",
        }
    }

    /// Adds the head to a graph, from the final state `[m, hidden]`.
    pub(crate) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        match self {
            Self::Linear(linear) => linear.build(nodes, trunk, state),
            Self::Mlp(mlp) => mlp.build(nodes, trunk, state),
            Self::LanguageModel => language_model::build(nodes, trunk, state),
        }
    }
}
