//! The shapes that graphs promise and the rows that they return, without naming any runtime.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

/// The number format of a tensor, as far as reward graphs use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 half precision.
    Float16,
    /// The upper half of a single-precision number.
    Bfloat16,
    /// Signed 64-bit integers, the usual type of token ids.
    Int64,
    /// Signed 32-bit integers.
    Int32,
    /// Anything else; no input or output of a reward graph has it.
    Other,
}

impl ElementType {
    /// Whether a head can read it.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float16 | Self::Bfloat16)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Int64 => "int64",
            Self::Int32 => "int32",
            Self::Other => "an unsupported type",
        })
    }
}

/// One axis of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Dimension {
    /// Always this long.
    Fixed(usize),
    /// As long as the input makes it; the name is the graph's own and may be empty.
    Dynamic(String),
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Dynamic(name) if name.is_empty() => f.write_str("?"),
            Self::Dynamic(name) => f.write_str(name),
        }
    }
}

/// Name, type and shape of one input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The number format.
    pub element: ElementType,
    /// The axes, outermost first.
    pub shape: Vec<Dimension>,
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[", self.name, self.element)?;
        for (position, dimension) in self.shape.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dimension}")?;
        }
        f.write_str("]")
    }
}

/// What a graph takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GraphSignature {
    /// The inputs, in the graph's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, in the graph's order.
    pub outputs: Vec<TensorSpec>,
}

/// What a graph returned for one sample: one row of an output, without its batch axis and without padding.
///
/// Shape `[K]` for a sequence-level output, `[S, V]` for a token-level output of a sample of `S` tokens.
/// `values` has as many numbers as the shape says, outermost axis first.
#[derive(Debug, Clone, PartialEq)]
pub struct RowTensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl RowTensor {
    /// Pairs numbers with their shape; `None` when their count differs from what the shape says.
    #[must_use]
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Option<Self> {
        (shape.iter().product::<usize>() == values.len()).then_some(Self { shape, values })
    }

    /// The axes, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers, outermost axis first.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
