//! The forms of the graph: what one device wants, written from a trunk and a head.

mod casts;
mod convnext;
mod convolutions;
mod decoder;
mod element;
mod experts;
mod fused;
mod members;
mod memory;
mod modernbert;
mod nodes;
mod norms;
mod packed;
mod padded;
mod prefix;
mod rounding;
mod towers;
mod weights;

use std::ops::Range;

use karat_onnx::ModelProto;

pub use element::{Element, NumbersMut};
pub(crate) use modernbert::build as modernbert;
pub(crate) use nodes::Nodes;
pub(crate) use packed::{decoder as packed_decoder, encoder as packed_encoder, takes_heads};
pub(crate) use padded::build as padded;
pub(crate) use prefix::{Parts, build as prefix};
pub(crate) use towers::{images, texts};

/// A form of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In 32 bits, from standard operators, for a processor: of a decoder one that shares what samples begin with
    /// (`rm-prefix/1`), of an encoder one of padded rows.
    Rows,
    /// The same for GPUs, from the older of those operators, which all providers know.
    GpuRows,
    /// Padded rows of an encoder, or images, in half precision from standard operators: for models without packed rows on
    /// NVIDIA GPUs. Inputs and outputs are those of [`Self::Rows`], and what is read is computed in 32 bits.
    HalfRows,
    /// Packed rows over blocks of keys and values (`rm-packed/1`), with numbers of this format: in 32 bits from standard
    /// operators, in 16 bits with those that ONNX Runtime has for NVIDIA GPUs alone.
    Packed(Element),
    /// The packed rows of 32 bits with everything rounded as those of this format are, to see on a processor what a GPU
    /// makes of a model.
    Rounded(Element),
}

impl Form {
    /// The format in which the trunk computes.
    pub(crate) fn element(self) -> Element {
        match self {
            Self::Rows | Self::GpuRows | Self::Rounded(_) => Element::Float32,
            Self::HalfRows => Element::Float16,
            Self::Packed(element) => element,
        }
    }
}

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
    /// What of the checkpoint it is, one below the other; at least one.
    pub sources: Vec<Source>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The format of its numbers.
    pub element: Element,
    /// Whether 1 is added to each number: norms that are stored as their distance from 1.
    pub plus_one: bool,
}

/// Rows of a checkpoint's tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The tensor.
    pub tensor: String,
    /// The rows, in order; all where there are none.
    pub rows: Vec<Range<usize>>,
}
