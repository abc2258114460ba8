//! The heads: which tensors make rewards of the trunk's last state.
//!
//! A head is found by its tensors, under any of the names in use; a checkpoint with none or with two is refused. Each
//! file here knows one arithmetic; [`HEADS`] is the list of those of decoders, and [`embedding`] has those of models that
//! see.

pub(crate) mod embedding;
mod gated;
mod language_model;
mod linear;
mod members;
mod mlp;
mod weighed;

use crate::{config::Config, graphs::Nodes, problems::Problems, trunks::Decoder, weights::Weights};
pub(crate) use language_model::LanguageModel;

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
    /// One for each member of an ensemble of adapters.
    Members(members::Members),
    /// The logits of tokens.
    LanguageModel(LanguageModel),
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
    /// The head that a checkpoint of this kind has; of an ensemble of adapters, those of the members of these names.
    pub(crate) fn find(
        kind: Kind,
        members: &[&str],
        weights: &Weights,
        config: &Config,
        problems: &mut Problems,
    ) -> Option<(Kind, Self)> {
        match members {
            [] => Self::find_one(kind, weights, config, problems),
            members => members::Members::find(kind, members, weights, config, problems),
        }
    }

    fn find_one(kind: Kind, weights: &Weights, config: &Config, problems: &mut Problems) -> Option<(Kind, Self)> {
        let found: Vec<Self> = HEADS.iter().flat_map(|find| find(weights, config, problems)).collect();
        match (found.as_slice(), kind) {
            ([], Kind::LanguageModel) => Some((kind, Self::LanguageModel(LanguageModel::default()))),
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
            Self::Members(members) => members.name(),
            Self::Gated(_) => "regression_layer",
            Self::Weighed(_) => "weights.fc",
            Self::LanguageModel(_) => "lm_head",
        }
    }

    /// How many rewards it makes: as many as the configuration has labels.
    pub(crate) fn rewards(&self, trunk: &Decoder, weights: &Weights) -> usize {
        match self {
            Self::Gated(_) => 1,
            Self::Weighed(weighed) => 2 * weighed.attributes,
            Self::Linear(_) | Self::Mlp(_) | Self::Members(_) | Self::LanguageModel(_) => {
                self.outputs(trunk, weights).first().map_or(0, |(_, width)| *width)
            }
        }
    }

    /// The graph's outputs that it gives, at least one, each with how many numbers it has a token.
    pub(crate) fn outputs(&self, trunk: &Decoder, weights: &Weights) -> Vec<(&'static str, usize)> {
        match self {
            Self::Linear(_) | Self::Mlp(_) => vec![("scores", self.rows(weights))],
            Self::Members(members) => vec![("scores", members.count())],
            Self::Weighed(weighed::Weighed { attributes: width }) => vec![("scores", *width), ("gates", *width)],
            Self::Gated(gated) => {
                let both = [("scores", gated.objectives), ("gates", gated.objectives)];
                both.into_iter().chain(gated.more_outputs()).collect()
            }
            Self::LanguageModel(model) => vec![("logits", model.width(trunk))],
        }
    }

    /// How many numbers a head that ends with a matrix gives; 0 of others.
    fn rows(&self, weights: &Weights) -> usize {
        let last = match self {
            Self::Linear(linear) => &linear.name,
            Self::Mlp(mlp) => &mlp.last,
            Self::Gated(_) | Self::Weighed(_) | Self::Members(_) | Self::LanguageModel(_) => return 0,
        };
        weights.shape(&format!("{last}.weight")).and_then(|shape| shape.first().copied()).unwrap_or(0)
    }

    /// Adds the head to a graph, from the final state `[m, hidden]`.
    pub(crate) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        self.build_into(nodes, trunk, state, "scores");
    }

    /// The same with a name for the scores.
    fn build_into(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str, scores: &str) {
        match self {
            Self::Linear(linear) => linear.build(nodes, trunk, state, scores),
            Self::Mlp(mlp) => mlp.build(nodes, trunk, state, scores),
            Self::Members(members) => members.build(nodes, trunk, state),
            Self::Gated(gated) => gated.build(nodes, trunk, state),
            Self::Weighed(weighed) => weighed.build(nodes, trunk, state),
            Self::LanguageModel(model) => model.build(nodes, trunk, state),
        }
    }
}
