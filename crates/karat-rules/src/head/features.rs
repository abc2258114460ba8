//! A small network over features that a person can read.
//!
//! `score = MLP(v)` over named features such as aspect coverage, conciseness or the absence of hallucination (Nath et al.
//! 2024, "Leveraging Domain Knowledge for Efficient Reward Modelling in RLHF: A Case-Study in E-Commerce Opinion
//! Summarization"). The features come from a graph; the network is a few numbers in the manifest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Head, HeadError, HeadOutput, Layout, finite,
    layout::{one_row, width},
    parameters::Names,
};
use crate::{
    domain::{Reward, RowTensor, TensorSpec, TokenizedInput, catalogue::Rule},
    numeric::sigmoid,
};

/// A small network over named features.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Features {
    /// The features, in the graph's order.
    names: Names,
    /// The network's layers, the last one with a single output.
    layers: Vec<Layer>,
}

impl Rule for Features {
    const NAME: &'static str = "features";
    const SUMMARY: &'static str =
        "A small network, written out in the manifest, over named features. Output [batch, F].";
    const FORMULA: &'static str = "h_0 = v; h_{l+1} = activation(W_l h_l + b_l); r = h_L";
    const SOURCE: &'static str = "Nath et al. 2024, Leveraging Domain Knowledge for Efficient Reward Modelling in RLHF";
    const EXAMPLES: &'static [&'static str] = &[
        r#"{"names": ["relevance", "conciseness"], "layers": [{"weights": [[0.7, 0.3]], "bias": [0.1]}]}"#,
        r#"{"names": ["relevance", "conciseness"], "layers": [
             {"weights": [[1, 0], [0, 1], [1, -1]], "bias": [0, 0, 0.5], "activation": "relu"},
             {"weights": [[0.5, 0.25, -1]], "bias": [0]}]}"#,
    ];

    type Parameters = Self;

    fn check_parameters(&self) -> Result<(), String> {
        let mut inputs = self.names.len();
        for (index, layer) in self.layers.iter().enumerate() {
            if let Some(row) = layer.weights.iter().find(|row| row.len() != inputs) {
                return Err(format!(
                    "layer {index} has {} weights for an output, and takes {inputs} inputs",
                    row.len()
                ));
            }
            if layer.bias.len() != layer.weights.len() || layer.bias.is_empty() {
                return Err(format!(
                    "layer {index} has {} outputs and {} biases; write at least one output and a bias for each",
                    layer.weights.len(),
                    layer.bias.len()
                ));
            }
            inputs = layer.bias.len();
        }
        if self.layers.is_empty() || inputs != 1 {
            return Err("the last layer must have one output".to_owned());
        }
        Ok(())
    }
}

/// One layer of the network.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Layer {
    /// One list for each output, with one number for each input.
    weights: Vec<Vec<f64>>,
    /// One number for each output.
    bias: Vec<f64>,
    /// What is applied to the sums.
    #[serde(default)]
    activation: Activation,
}

/// What is applied to a layer's sums.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `tanh x`.
    Tanh,
    /// `1 / (1 + e^(−x))`.
    Sigmoid,
}

impl Layer {
    fn apply(&self, inputs: &[f64]) -> Vec<f64> {
        let sums = self.weights.iter().zip(&self.bias).map(|(weights, bias)| {
            weights.iter().zip(inputs).map(|(weight, input)| weight * input).sum::<f64>() + bias
        });
        sums.map(|sum| match self.activation {
            Activation::Identity => sum,
            Activation::Relu => sum.max(0.0),
            Activation::Tanh => sum.tanh(),
            Activation::Sigmoid => sigmoid(sum),
        })
        .collect()
    }
}

impl Features {
    fn forward(&self, features: &[f64]) -> Result<Reward, HeadError> {
        let outputs = self.layers.iter().fold(features.to_vec(), |inputs, layer| layer.apply(&inputs));
        Ok(Reward::new(outputs[0])?)
    }
}

impl Head for Features {
    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(self.names.len())]]
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        Some(format!("name {} features, in the graph's order", width(output)?))
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        Ok(HeadOutput::Members(vec![self.forward(&finite(one_row(self, input, rows)?)?)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{head, input, numbers, row},
        *,
    };
    use crate::numeric::testing::assert_all_close;

    #[test]
    fn the_network_is_computed_layer_by_layer() {
        let head = head(&format!(r#"{{"features":{}}}"#, Features::EXAMPLES[1])).unwrap();
        let read = head.read(&input(1), &[row(&[2], &[2.0, -1.0])]).unwrap();
        // relu(2, -1, 3.5) = (2, 0, 3.5); 0.5 * 2 - 3.5
        assert_all_close(&numbers(read.members()), &[-2.5]);
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        for bad in [
            r#"{"names":["a"],"layers":[]}"#,
            r#"{"names":["a"],"layers":[{"weights":[[1,2]],"bias":[0]}]}"#,
            r#"{"names":["a"],"layers":[{"weights":[[1],[2]],"bias":[0,0]}]}"#,
            r#"{"names":["a"],"layers":[{"weights":[[1]],"bias":[]}]}"#,
            r#"{"names":[],"layers":[{"weights":[[]],"bias":[0]}]}"#,
        ] {
            assert!(head(&format!(r#"{{"features":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
