//! The forms of the graph: what one device wants, written from a trunk and a head.

mod experts;
mod modernbert;
mod nodes;
mod padded;
mod prefix;

use std::ops::Range;

use karat_onnx::ModelProto;

pub(crate) use modernbert::build as modernbert;
pub(crate) use nodes::Nodes;
pub(crate) use padded::build as padded;
pub(crate) use prefix::{Parts, build as prefix};

/// A graph without its weights, and where those come from.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The graph; each of its weights is external data of the name that it has in [`Graph::tensors`].
    pub model: ModelProto,
    /// The weights that it refers to, in the order of their use.
    pub tensors: Vec<Tensor>,
}

/// A weight that a graph refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the graph.
    pub name: String,
    /// The checkpoint's tensor.
    pub source: String,
    /// The rows of that tensor, in order; all where there are none.
    pub rows: Vec<Range<usize>>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether 1 is added to each number: norms that are stored as their distance from 1.
    pub plus_one: bool,
}
