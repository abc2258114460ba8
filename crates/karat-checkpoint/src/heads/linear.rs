//! One matrix: the head of most reward models, under many names.

use super::{Head, weighed};
use crate::{
    config::Config,
    graphs::Nodes,
    problems::Problems,
    trunks::{Decoder, Piece},
    weights::Weights,
};

/// What the matrix is called, by those who save one.
pub(super) const NAMES: &[&str] = &[
    "score",
    "classifier",
    "v_head",
    "v_head.summary",
    "value_head",
    "regression_head",
    "score_head",
    "reward_head",
    "rm_head",
    "classification_head",
    "out_proj",
];

/// `W h + b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linear {
    /// `{name}.weight`, and `{name}.bias` where there is one.
    pub(super) name: String,
    bias: bool,
}

pub(super) fn find(weights: &Weights, config: &Config, _: &mut Problems) -> Vec<Head> {
    config.know(&["classification_out_size"]);
    if weighed::is_there(weights) {
        return Vec::new();
    }
    // OpenRLHF says what it calls its head.
    let named = config.text("value_head_prefix").into_iter();
    let mut names: Vec<&str> = NAMES.iter().copied().chain(named).collect();
    names.dedup();
    let found = names.into_iter().filter(|name| weights.has(&format!("{name}.weight")));
    let mut heads: Vec<Head> = found
        .map(|name| Head::Linear(Linear { name: name.to_owned(), bias: weights.has(&format!("{name}.bias")) }))
        .collect();
    heads.dedup();
    heads
}

impl Linear {
    pub(super) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str, output: &str) {
        let rows = nodes.rows(&format!("{}.weight", self.name));
        nodes.linear_into(output, &Piece::whole(self.name.clone()), state, [rows, trunk.hidden], self.bias);
    }
}
