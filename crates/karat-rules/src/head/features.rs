//! A small network over features that a person can read.
//!
//! `score = MLP(v)` over named features such as aspect coverage, conciseness or the absence of hallucination (Nath et al.
//! 2024, "Leveraging Domain Knowledge for Efficient Reward Modelling in RLHF: A Case-Study in E-Commerce Opinion
//! Summarization"). The features come from a graph, from other models, or with the request; the network is a few numbers
//! in the manifest.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Head, HeadError, HeadOutput, HeadShape, Layout, distinct, finite, layout::arrangement};
use crate::{
    domain::{
        Dimension, Reward, RowTensor, TensorSpec, TokenizedInput,
        catalogue::{Entry, parameter_schema, parameters},
    },
    numeric::sigmoid,
};

pub(super) const ENTRY: Entry<dyn Head> = Entry {
    name: "features",
    summary: "A small network, written out in the manifest, over named features. Output [batch, F]; features can also \
              come with the request or from other models.",
    formula: "h_0 = v; h_{l+1} = activation(W_l h_l + b_l); r = h_L",
    source: "Nath et al. 2024, Leveraging Domain Knowledge for Efficient Reward Modelling in RLHF",
    examples: &[
        r#"{"names": ["relevance", "conciseness"], "layers": [{"weights": [[0.7, 0.3]], "bias": [0.1]}]}"#,
        r#"{"names": ["relevance", "conciseness"], "layers": [
             {"weights": [[1, 0], [0, 1], [1, -1]], "bias": [0, 0, 0.5], "activation": "relu"},
             {"weights": [[0.5, 0.25, -1]], "bias": [0]}]}"#,
    ],
    laws: &[],
    parameters: parameter_schema::<Parameters>,
    build: |value| {
        let Parameters { names, layers } = parameters(value)?;
        Ok(Box::new(Features::new(names, layers)?))
    },
};

/// Parameters of the features head.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The features, in the graph's order.
    names: Vec<String>,
    /// The network's layers, the last one with a single output.
    layers: Vec<Layer>,
}

/// One layer of the network.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layer {
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

/// A small network over named features.
#[derive(Debug, Clone)]
pub struct Features {
    names: Vec<String>,
    layers: Vec<Layer>,
}

impl Features {
    /// Checks that each layer takes what the one before it gives, and that the last gives one number.
    ///
    /// # Errors
    /// Which layer doesn't fit and how long it must be.
    pub fn new(names: Vec<String>, layers: Vec<Layer>) -> Result<Self, String> {
        distinct("names", &names)?;
        let mut inputs = names.len();
        for (index, layer) in layers.iter().enumerate() {
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
            if layer.weights.iter().flatten().chain(&layer.bias).any(|number| !number.is_finite()) {
                return Err(format!("layer {index} holds a number that is not finite"));
            }
            inputs = layer.bias.len();
        }
        if layers.is_empty() || inputs != 1 {
            return Err("the last layer must have one output".to_owned());
        }
        Ok(Self { names, layers })
    }

    /// The features, in the network's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The score of features that came with a request or from other models.
    ///
    /// # Errors
    /// When a feature is missing or unknown, or the score is not finite.
    pub fn score(&self, features: &IndexMap<String, Reward>) -> Result<Reward, HeadError> {
        let unknown = features.keys().find(|name| !self.names.contains(name));
        let missing = self.names.iter().find(|name| !features.contains_key(*name));
        if let Some(name) = unknown.or(missing) {
            return Err(HeadError::Feature { name: name.clone(), known: self.names.join(", ") });
        }
        let values: Vec<f64> = self.names.iter().filter_map(|name| features.get(name)).map(|v| v.get()).collect();
        self.forward(&values)
    }

    fn forward(&self, features: &[f64]) -> Result<Reward, HeadError> {
        let outputs = self.layers.iter().fold(features.to_vec(), |inputs, layer| layer.apply(&inputs));
        Ok(Reward::new(outputs[0])?)
    }
}

impl Head for Features {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn layouts(&self) -> Vec<Vec<Layout>> {
        vec![vec![Layout::list(self.names.len())]]
    }

    fn shape(&self) -> HeadShape {
        HeadShape::of(1)
    }

    fn advice(&self, output: &TensorSpec) -> Option<String> {
        match output.shape.as_slice() {
            [_, Dimension::Fixed(count)] => Some(format!("name {count} features, in the graph's order")),
            _ => None,
        }
    }

    fn read(&self, input: &TokenizedInput, rows: &[RowTensor]) -> Result<HeadOutput, HeadError> {
        arrangement(Head::name(self), &self.layouts(), input, rows)?;
        Ok(HeadOutput::Members(vec![self.forward(&finite(rows[0].values())?)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{head, input, numbers, row},
        *,
    };
    use crate::numeric::testing::{assert_all_close, assert_close};

    #[test]
    fn the_network_is_computed_layer_by_layer() {
        let head = head(&format!(r#"{{"features":{}}}"#, ENTRY.examples[1])).unwrap();
        let read = head.read(&input(1), &[row(&[2], &[2.0, -1.0])]).unwrap();
        // relu(2, -1, 3.5) = (2, 0, 3.5); 0.5 * 2 - 3.5
        assert_all_close(&numbers(read.members()), &[-2.5]);
    }

    #[test]
    fn features_by_name_ignore_their_order_and_refuse_gaps() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let layer = Layer { weights: vec![vec![1.0, 10.0]], bias: vec![0.0], activation: Activation::Identity };
        let network = Features::new(names, vec![layer]).unwrap();
        let feature = |name: &str, value: f64| (name.to_owned(), Reward::new(value).unwrap());
        let score = network.score(&IndexMap::from([feature("b", 1.0), feature("a", 2.0)])).unwrap();
        assert_close(score.get(), 12.0);
        assert!(network.score(&IndexMap::from([feature("a", 2.0)])).is_err());
        assert!(network.score(&IndexMap::from([feature("a", 2.0), feature("b", 1.0), feature("c", 1.0)])).is_err());
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
