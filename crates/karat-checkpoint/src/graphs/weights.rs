//! The weights that a graph refers to, held against the checkpoint's tensors.

use std::ops::Range;

use karat_onnx::{StringStringEntryProto, TensorProto, tensor_proto::DataLocation};

use super::{
    Source, Tensor,
    nodes::{Attribute, Nodes, dims},
};
use crate::trunks::{Norm, Piece};

impl Nodes<'_> {
    /// A weight of the checkpoint, which has to have this shape.
    ///
    /// `rows` are those of the checkpoint's tensor, in order; none for all of it.
    pub(super) fn weight(&mut self, source: &str, rows: &[Range<usize>], shape: &[usize], plus_one: bool) -> String {
        let source = Source { tensor: self.resolve(source), rows: rows.to_vec() };
        self.store(&[(source, shape.to_vec())], shape, plus_one)
    }

    /// A whole tensor of the checkpoint.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> String {
        self.weight(name, &[], shape, false)
    }

    /// The weight of a decoder's norm.
    pub(super) fn norm_weight(&mut self, piece: &Piece, size: usize, norm: Norm) -> String {
        self.weight(&format!("{}.weight", piece.tensor), &piece.rows, &[size], norm.one_is_zero)
    }

    /// `value` `[n, columns]` times the transposes of several weights side by side, each with as many rows as it says,
    /// plus their biases: one product in place of several.
    pub(super) fn joined(&mut self, pieces: &[(Piece, usize)], value: &str, columns: usize, bias: bool) -> String {
        if pieces.iter().any(|(piece, _)| self.differs(piece)) {
            let apart: Vec<String> =
                pieces.iter().map(|(piece, rows)| self.linear(piece, value, [*rows, columns], bias)).collect();
            return self.concat(&apart.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let all: usize = pieces.iter().map(|(_, rows)| rows).sum();
        let mut of = |what: &str, inner: &[usize]| {
            let source = |(piece, rows): &(Piece, usize)| {
                let source = Source { tensor: format!("{}.{what}", piece.tensor), rows: piece.rows.clone() };
                (source, [&[*rows], inner].concat())
            };
            let sources: Vec<_> = pieces.iter().map(source).collect();
            self.store(&sources, &[&[all], inner].concat(), false)
        };
        let weight = of("weight", &[columns]);
        let bias = bias.then(|| of("bias", &[]));
        let mut inputs = vec![value, &weight];
        inputs.extend(bias.as_deref());
        let product = self.add_with("Gemm", &inputs, &[("transB", Attribute::Int(1))]);
        self.rounded(&product)
    }

    /// Refers to weights one below the other, each with its own shape, as one of this shape.
    fn store(&mut self, sources: &[(Source, Vec<usize>)], shape: &[usize], plus_one: bool) -> String {
        let name = |source: &Source| match source.rows.first() {
            None => source.tensor.clone(),
            Some(first) => format!("{}.rows_{}", source.tensor, first.start),
        };
        let names: Vec<String> = sources.iter().map(|(source, _)| name(source)).collect();
        let (element, name) = (self.element(), format!("{}{}", names.join("+"), self.element().suffix()));
        if !self.known.insert(name.clone()) {
            return self.rounded(&name);
        }
        for (source, shape) in sources {
            self.check(source, shape);
        }
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            dims: dims(shape),
            data_type: Some(element.data_type().into()),
            data_location: Some(DataLocation::External.into()),
            external_data: vec![StringStringEntryProto::new("location", "checkpoint")],
            ..TensorProto::default()
        });
        let sources = sources.iter().map(|(source, _)| source.clone()).collect();
        self.tensors.push(Tensor { name: name.clone(), sources, shape: shape.to_vec(), element, plus_one });
        self.rounded(&name)
    }

    /// Notes a problem unless the checkpoint has rows of that shape.
    fn check(&mut self, source: &Source, shape: &[usize]) {
        let Source { tensor, rows } = source;
        let Some(found) = self.weights.shape(tensor) else {
            self.missing.push(tensor.clone());
            return;
        };
        // Of a tensor that several parts share, each needs its rows to be there.
        let fits = match rows.iter().map(|rows| rows.end).max() {
            None => found == shape,
            Some(end) => found.first().is_some_and(|all| *all >= end) && found[1..] == shape[1..],
        };
        if !fits {
            self.problems.add::<()>(format!("{tensor} is {found:?}, and by config.json it should be {shape:?}"));
        }
    }
}
