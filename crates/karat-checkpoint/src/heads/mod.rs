//! The heads: which tensors make rewards of the trunk's last state.
//!
//! A head is found by its tensors, under any of the names in use; a checkpoint with none or with two is refused. Each
//! file here knows one arithmetic; [`HEADS`] is the list of them.

mod gated;
mod language_model;
mod linear;
mod mlp;
mod weighed;

use crate::{config::Config, graphs::Nodes, problems::Problems, trunks::Decoder, weights::Weights};

/// Finds the heads of one arithmetic by their tensors.
type Find = fn(&Weights, &Config, &mut Problems) -> Vec<Head>;

/// Every head that a checkpoint can carry beside a language model's own.
const HEADS: &[Find] = &[linear::find, mlp::find, gated::find, weighed::find];

/// A head, with the names of its tensors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Head {
    /// `W h + b`.
    Linear(linear::Linear),
    /// `W₂ relu(W₁ h + b₁) + b₂`.
    Mlp(mlp::Mlp),
    /// Objectives, and weights that are read at a token of their own.
    Gated(gated::Gated),
    /// Attributes, and weights that are read at the same token.
    Weighed(weighed::Weighed),
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
        let found: Vec<Self> = HEADS.iter().flat_map(|find| find(weights, config, problems)).collect();
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
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Linear(linear) => &linear.name,
            Self::Mlp(mlp) => &mlp.first,
            Self::Gated(_) => "regression_layer",
            Self::Weighed(_) => "weights.fc",
            Self::LanguageModel => "lm_head",
        }
    }

    /// How many rewards it makes: as many as the configuration has labels.
    pub(crate) fn rewards(&self, trunk: &Decoder, weights: &Weights) -> usize {
        match self {
            Self::Gated(_) => 1,
            Self::Weighed(weighed) => 2 * weighed.attributes,
            Self::Linear(_) | Self::Mlp(_) | Self::LanguageModel => {
                self.outputs(trunk, weights).first().map_or(0, |(_, width)| *width)
            }
        }
    }

    /// The graph's outputs that it gives, at least one, each with how many numbers it has a token.
    pub(crate) fn outputs(&self, trunk: &Decoder, weights: &Weights) -> Vec<(&'static str, usize)> {
        let rows = |name: &str| weights.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied());
        match self {
            Self::Linear(linear) => vec![("scores", rows(&linear.name).unwrap_or(0))],
            Self::Mlp(mlp) => vec![("scores", rows(&mlp.last).unwrap_or(0))],
            Self::Gated(gated::Gated { objectives: width, .. })
            | Self::Weighed(weighed::Weighed { attributes: width }) => vec![("scores", *width), ("gates", *width)],
            Self::LanguageModel => vec![("logits", trunk.vocabulary)],
        }
    }

    /// Adds the head to a graph, from the final state `[m, hidden]`.
    pub(crate) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        match self {
            Self::Linear(linear) => linear.build(nodes, trunk, state),
            Self::Mlp(mlp) => mlp.build(nodes, trunk, state),
            Self::Gated(gated) => gated.build(nodes, trunk, state),
            Self::Weighed(weighed) => weighed.build(nodes, trunk, state),
            Self::LanguageModel => language_model::build(nodes, trunk, state),
        }
    }
}
