//! Several attributes with their spread, and a network that weighs them: URM.
//!
//! Lou et al. 2024, "Uncertainty-aware Reward Model: Teaching Reward Models to Know What is Unknown". The rows of `score`
//! come in pairs, an attribute's mean and its spread, of which the means count; the weights come from the same state and
//! are no shares of anything.

use super::Head;
use crate::{
    config::Config,
    graphs::Nodes,
    problems::Problems,
    trunks::{Decoder, Piece},
    weights::Weights,
};

/// The linear layers of the network; between them stand SELUs.
const LAYERS: [&str; 3] = ["weights.fc.0", "weights.fc.2", "weights.fc.4"];

/// `W h`, every other row, weighed by a network of h.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weighed {
    pub(super) attributes: usize,
}

/// Whether `score` is part of this head.
pub(super) fn is_there(weights: &Weights) -> bool {
    weights.has(&format!("{}.weight", LAYERS[0]))
}

pub(super) fn find(weights: &Weights, _: &Config, problems: &mut Problems) -> Vec<Head> {
    if !is_there(weights) {
        return Vec::new();
    }
    match weights.shape("score.weight") {
        Some([rows, _]) if rows % 2 == 0 => vec![Head::Weighed(Weighed { attributes: rows / 2 })],
        shape => {
            problems.add::<()>(format!("score.weight is {shape:?}, and weighed attributes need two rows each"));
            Vec::new()
        }
    }
}

impl Weighed {
    pub(super) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        let means = (0..self.attributes).map(|attribute| 2 * attribute..2 * attribute + 1);
        let score = Piece { tensor: "score".to_owned(), rows: means.collect() };
        nodes.linear_into("scores", &score, state, [self.attributes, trunk.hidden], false);
        let [first, second, last] = LAYERS.map(|name| Piece::whole(name.to_owned()));
        let widths = [&first, &second].map(|layer| nodes.rows(&format!("{}.weight", layer.tensor)));
        let inner = nodes.linear(&first, state, [widths[0], trunk.hidden], true);
        let inner = nodes.add("Selu", &[&inner]);
        let inner = nodes.linear(&second, &inner, [widths[1], widths[0]], true);
        let inner = nodes.add("Selu", &[&inner]);
        nodes.linear_into("gates", &last, &inner, [self.attributes, widths[1]], true);
    }
}
