//! Norms over the last axis.

use super::{
    Element,
    nodes::{Attribute, Nodes},
};
use crate::trunks::{Norm, NormKind, Piece};

impl Nodes<'_> {
    /// A decoder's norm of rows of that size.
    pub(super) fn norm(&mut self, piece: &Piece, value: &str, size: usize, norm: Norm) -> String {
        if self.differs(piece) {
            return self.norm_of_members(piece, value, size, norm);
        }
        self.norm_by_head(piece, value, size, norm)
    }

    /// The same of each head of a row.
    pub(super) fn norm_by_head(&mut self, piece: &Piece, value: &str, size: usize, norm: Norm) -> String {
        let weight = self.norm_weight(piece, size, norm);
        let normal = match norm.kind {
            NormKind::RootMeanSquare => self.rms_norm(&weight, value, norm.epsilon),
            NormKind::Layer { bias } => {
                let bias = bias.then(|| self.weight(&format!("{}.bias", piece.tensor), &piece.rows, &[size], false));
                self.normalised(value, &weight, bias.as_deref(), norm.epsilon)
            }
        };
        self.rounded(&normal)
    }

    /// Root-mean-square norm over the last axis (Zhang and Sennrich 2019).
    fn rms_norm(&mut self, weight: &str, value: &str, epsilon: f64) -> String {
        if self.element() != Element::Float32 {
            return self.fused_rms_norm(weight, value, epsilon);
        }
        let two = self.number("two", 2.0);
        let axis = self.integers("last_axis", &[-1]);
        let epsilon = self.number("norm_epsilon", epsilon);
        let square = self.add("Pow", &[value, &two]);
        let mean = self.add("ReduceMean", &[&square, &axis]);
        let offset = self.add("Add", &[&mean, &epsilon]);
        let root = self.add("Sqrt", &[&offset]);
        let normal = self.add("Div", &[value, &root]);
        self.add("Mul", &[&normal, weight])
    }

    /// Norm over the last axis, with a weight and perhaps a bias (Ba et al. 2016).
    pub(super) fn layer_norm(&mut self, piece: &Piece, value: &str, size: usize, epsilon: f64, bias: bool) -> String {
        let weight = self.weight(&format!("{}.weight", piece.tensor), &[], &[size], false);
        let bias = bias.then(|| self.weight(&format!("{}.bias", piece.tensor), &[], &[size], false));
        self.normalised(value, &weight, bias.as_deref(), epsilon)
    }

    /// Rows divided by their length, `x / |x|`.
    pub(crate) fn unit(&mut self, value: &str) -> String {
        let axis = self.integers("last_axis", &[-1]);
        let length = self.add("ReduceL2", &[value, &axis]);
        self.add("Div", &[value, &length])
    }

    fn normalised(&mut self, value: &str, weight: &str, bias: Option<&str>, epsilon: f64) -> String {
        let mut inputs = vec![value, weight];
        inputs.extend(bias);
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Number(epsilon))];
        self.add_with("LayerNormalization", &inputs, &attributes)
    }
}
