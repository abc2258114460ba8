//! Several objectives, and a network that weighs them by the prompt: ArmoRM and QRM.
//!
//! Wang et al. 2024, "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts"; Dorka 2024,
//! "Quantile Regression for Distributional Reward Models in RLHF". Both classes have one name. ArmoRM's network is linear
//! layers with rectifiers between them; QRM's has a batch norm behind each rectifier, and each objective several
//! quantiles, whose mean counts. The reward is `Σ_j g_j (r T)_j` for rewards r, the matrix T and weights g; the graph
//! gives what each model's authors report as its rewards, and the weights that belong to those: r and g Tᵀ of ArmoRM, r T
//! and g of QRM. Of QRM it gives the objectives' quantiles as well, `v_q T` for each level q in turn, from which those of
//! the reward are weighed.

use super::Head;
use crate::{
    config::Config,
    graphs::Nodes,
    problems::Problems,
    trunks::{Decoder, Piece},
    weights::Weights,
};

/// What keeps the root of a batch norm's variance from 0.
const EPSILON: f64 = 1e-5;

/// `softmax(network(h at the gate) / temperature) · scale`, weighing `W h`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gated {
    pub(super) objectives: usize,
    /// How many quantiles each objective has; 1 where it has one number.
    quantiles: usize,
    /// How many hidden layers the network has, each with a rectifier.
    layers: usize,
    /// Whether a batch norm follows each rectifier.
    normed: bool,
    temperature: f64,
}

pub(super) fn find(weights: &Weights, config: &Config, problems: &mut Problems) -> Vec<Head> {
    if !weights.has("regression_layer.weight") {
        return Vec::new();
    }
    // The width of the layers is that of their tensors. A misspelt switch is in QRM's own configuration.
    config.know(&["gating_hidden_dim", "gating_network", "gating_newtork"]);
    let normed = weights.has("gating.layers.2.running_mean");
    let matrix = weights.shape("reward_transform_matrix").and_then(|shape| shape.first().copied());
    let objectives = config.count_or("num_objectives", matrix.unwrap_or(1), problems);
    let quantiles = config.count_or("num_quantiles", 1, problems);
    let layers = config.count_or("gating_n_hidden", 3, problems);
    let temperature = config.positive_or("gating_temperature", 10.0, problems);
    let parts = objectives.zip(quantiles).zip(layers.zip(temperature));
    let gated = parts.map(|((objectives, quantiles), (layers, temperature))| {
        Head::Gated(Gated { objectives, quantiles, layers, normed, temperature })
    });
    gated.into_iter().collect()
}

impl Gated {
    pub(super) fn build(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) {
        let Self { objectives, quantiles, .. } = *self;
        let regression = Piece::whole("regression_layer".to_owned());
        let mut rewards = nodes.linear(&regression, state, [objectives * quantiles, trunk.hidden], false);
        if quantiles > 1 {
            let by_objective = nodes.grouped(&rewards, &[objectives, quantiles]);
            self.quantiles(nodes, &by_objective);
            let last = nodes.integers("last_axis", &[-1]);
            let means = nodes.add("ReduceMean", &[&by_objective, &last]);
            rewards = nodes.grouped(&means, &[objectives]);
        }
        let weights = self.weights(nodes, trunk, state);
        let matrix = nodes.tensor("reward_transform_matrix", &[objectives, objectives]);
        if self.normed {
            nodes.add_into("scores", "MatMul", &[&rewards, &matrix]);
            nodes.add_into("gates", "Identity", &[&weights]);
        } else {
            let transposed = nodes.add("Transpose", &[&matrix]);
            nodes.add_into("scores", "Identity", &[&rewards]);
            nodes.add_into("gates", "MatMul", &[&weights, &transposed]);
        }
    }

    /// Gives the quantiles out, `[m, quantiles · objectives]`, from `[m, objectives, quantiles]`.
    fn quantiles(&self, nodes: &mut Nodes<'_>, by_objective: &str) {
        let Self { objectives, quantiles, .. } = *self;
        let matrix = nodes.tensor("reward_transform_matrix", &[objectives, objectives]);
        let by_level = nodes.swapped(by_objective);
        let transformed = nodes.add("MatMul", &[&by_level, &matrix]);
        let flat = nodes.grouped(&transformed, &[quantiles * objectives]);
        nodes.add_into("quantiles", "Identity", &[&flat]);
    }

    /// The outputs beside scores and gates.
    pub(super) fn more_outputs(&self) -> Option<(&'static str, usize)> {
        (self.quantiles > 1).then_some(("quantiles", self.quantiles * self.objectives))
    }

    /// The objectives' weights `[m, objectives]`.
    fn weights(&self, nodes: &mut Nodes<'_>, trunk: &Decoder, state: &str) -> String {
        let mut inner = state.to_owned();
        let mut width = trunk.hidden;
        // Rectifiers stand in QRM's list of layers, and not in ArmoRM's.
        let stride = if self.normed { 3 } else { 1 };
        for layer in 0..self.layers {
            let name = format!("gating.layers.{}", layer * stride);
            let rows = nodes.rows(&format!("{name}.weight"));
            inner = nodes.linear(&Piece::whole(name), &inner, [rows, width], !self.normed);
            inner = nodes.add("Relu", &[&inner]);
            width = rows;
            if self.normed {
                inner = batch_norm(nodes, &format!("gating.layers.{}", layer * stride + 2), &inner, width);
            }
        }
        let last = Piece::whole(format!("gating.layers.{}", self.layers * stride));
        let logits = nodes.linear(&last, &inner, [self.objectives, width], true);
        let temperature = nodes.number("gating_temperature", self.temperature);
        let logits = nodes.add("Div", &[&logits, &temperature]);
        let shares = nodes.add("Softmax", &[&logits]);
        let scale = nodes.tensor("gating.logit_scale", &[1]);
        nodes.add("Mul", &[&shares, &scale])
    }
}

/// A batch norm by the statistics that training left: `(x − mean) / √(variance + ε) · w + b`.
fn batch_norm(nodes: &mut Nodes<'_>, name: &str, value: &str, width: usize) -> String {
    let [mean, variance, weight, bias] =
        ["running_mean", "running_var", "weight", "bias"].map(|part| nodes.tensor(&format!("{name}.{part}"), &[width]));
    let epsilon = nodes.number("batch_norm_epsilon", EPSILON);
    let offset = nodes.add("Add", &[&variance, &epsilon]);
    let deviation = nodes.add("Sqrt", &[&offset]);
    let centred = nodes.add("Sub", &[value, &mean]);
    let normal = nodes.add("Div", &[&centred, &deviation]);
    let scaled = nodes.add("Mul", &[&normal, &weight]);
    nodes.add("Add", &[&scaled, &bias])
}
