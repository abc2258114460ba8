//! Two matrices with a rectifier between them: Qwen's reward models, INF-ORM, GRM.

use super::Head;
use crate::{
    config::Config,
    graphs::Nodes,
    problems::Problems,
    trunks::{Decoder, Piece},
    weights::Weights,
};

/// What the two layers are called, by those who save them: places in a sequence whose middle is the rectifier.
const NAMES: &[&str] = &["score", "v_head.summary"];

/// `W₂ relu(W₁ h + b₁) + b₂`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mlp {
    pub(super) first: String,
    pub(super) last: String,
}

pub(super) fn find(weights: &Weights, config: &Config, _: &mut Problems) -> Vec<Head> {
    // GRM says how its head is made; its tensors say the same.
    config.know(&["vhead_layer_type", "vhead_num_layers", "vhead_num_neurons"]);
    let layers = NAMES.iter().map(|name| Mlp { first: format!("{name}.0"), last: format!("{name}.2") });
    layers
        .filter(|mlp| [&mlp.first, &mlp.last].iter().all(|layer| weights.has(&format!("{layer}.weight"))))
        .map(Head::Mlp)
        .collect()
}

impl Mlp {
    pub(super) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str, output: &str) {
        let width = nodes.rows(&format!("{}.weight", self.first));
        let rows = nodes.rows(&format!("{}.weight", self.last));
        let inner = nodes.linear(&Piece::whole(self.first.clone()), state, [width, trunk.hidden], true);
        let inner = nodes.add("Relu", &[&inner]);
        nodes.linear_into(output, &Piece::whole(self.last.clone()), &inner, [rows, width], true);
    }
}
