//! Heads over the embedding of an image, which is normed before it is read: aesthetic predictors.
//!
//! They are saved as matrices under their places in a sequence, and no file says what stood between them. So only those
//! sequences are read whose authors' code is known: [`LAYOUTS`] is the list of them.

use std::collections::BTreeSet;

use crate::{
    graphs::Nodes,
    problems::Problems,
    trunks::{Piece, encoder::Gate},
    weights::Weights,
};

/// Matrices, one after another, over `e / |e|`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmbeddingHead {
    /// What their tensors are called, in order; at least one.
    layers: Vec<Layer>,
    /// What stands between two of them.
    between: Option<Gate>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    name: String,
    rows: usize,
    bias: bool,
}

/// A sequence that is known.
struct Layout {
    /// What the names of its tensors begin with.
    prefix: &'static str,
    /// The places of its matrices; none where it is one matrix, whose name is the prefix.
    places: &'static [usize],
    /// What stands between them. Dropout, which does so in all, does nothing after training.
    between: Option<Gate>,
}

const LAYOUTS: &[Layout] = &[
    // LAION's (Schuhmann et al. 2022, "LAION-5B"): one matrix, and the MLPs `…-linearMSE` and `…-reluMSE`.
    Layout { prefix: LINEAR, places: &[], between: None },
    Layout { prefix: "layers.", places: &[0, 2, 4, 6, 7], between: None },
    Layout { prefix: "layers.", places: &[0, 3, 6, 9, 11], between: Some(Gate::Relu) },
    // Aesthetic Predictor V2.5, over SigLIP.
    Layout { prefix: "scoring_head.", places: &[0, 2, 4, 6, 8], between: None },
    Layout { prefix: "layers.scoring_head.", places: &[0, 2, 4, 6, 8], between: None },
];
/// What one matrix is called, also where it was saved without a name.
const LINEAR: &str = "predictor";

impl Layout {
    /// What its matrices are called, in their order.
    fn names(&self) -> Vec<String> {
        match self.places {
            [] => vec![self.prefix.to_owned()],
            places => places.iter().map(|place| format!("{}{place}", self.prefix)).collect(),
        }
    }

    fn layers(&self, weights: &Weights) -> Vec<Layer> {
        let layer = |name: String| {
            let rows = weights.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied());
            Layer { rows: rows.unwrap_or(0), bias: weights.has(&format!("{name}.bias")), name }
        };
        self.names().into_iter().map(layer).collect()
    }
}

impl EmbeddingHead {
    /// The head that lies among the weights, if one does.
    #[expect(clippy::option_option, reason = "a head that can't be read is told from none")]
    pub(crate) fn find(weights: &mut Weights, problems: &mut Problems) -> Option<Option<Self>> {
        weights.name_layer(LINEAR);
        let modules = weights.names().filter_map(|name| name.strip_suffix(".weight"));
        let of_head = |name: &&str| LAYOUTS.iter().any(|layout| name.starts_with(layout.prefix));
        let found: BTreeSet<String> = modules.filter(of_head).map(str::to_owned).collect();
        if found.is_empty() {
            return Some(None);
        }
        let Some(layout) = LAYOUTS.iter().find(|layout| BTreeSet::from_iter(layout.names()) == found) else {
            let found: Vec<String> = found.into_iter().collect();
            return problems.add(format!(
                "the head over the embedding consists of {}, and no file says what stood between them; known are one matrix \
                 ({LINEAR}), LAION's layers (0, 2, 4, 6, 7, and with rectifiers 0, 3, 6, 9, 11) and scoring_head (0, 2, 4, \
                 6, 8). Export the whole as an ONNX graph of pixels",
                found.join(", ")
            ));
        };
        Some(Some(Self { layers: layout.layers(weights), between: layout.between }))
    }

    /// How many numbers it gives.
    pub(crate) fn rows(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.rows)
    }

    /// What it is, as the end of a sentence.
    pub(crate) fn describe(&self) -> String {
        match (self.layers.len(), self.between) {
            (1, _) => "one matrix".to_owned(),
            (count, None) => format!("{count} matrices with nothing between them"),
            (count, Some(_)) => format!("{count} matrices with rectifiers between them"),
        }
    }

    /// Adds the head to a graph, from embeddings `[batch, width]`.
    pub(crate) fn build(&self, nodes: &mut Nodes<'_>, embeddings: &str, width: usize, output: &str) {
        let mut value = nodes.unit(embeddings);
        let mut columns = width;
        let Some((last, before)) = self.layers.split_last() else { return };
        for Layer { name, rows, bias } in before {
            value = nodes.linear(&Piece::whole(name.clone()), &value, [*rows, columns], *bias);
            if let Some(between) = self.between {
                value = nodes.gate(between, &value);
            }
            columns = *rows;
        }
        nodes.linear_into(output, &Piece::whole(last.name.clone()), &value, [last.rows, columns], last.bias);
    }
}
