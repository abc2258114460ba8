//! The tensors that every model takes and gives, whatever the transport that describes them.

/// The platform that runs a model's graphs, as the protocol spells it.
pub(super) const PLATFORM: &str = "onnx_onnxv1";

/// The platform and the backend as Triton spells them.
pub(super) const TRITON_PLATFORM: &str = "onnxruntime_onnx";
pub(super) const BACKEND: &str = "onnxruntime";

/// A number format, by its names in the protocol and in Triton's model configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datatype {
    Bytes,
    Int64,
    Fp32,
    Bool,
}

impl Datatype {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "BYTES",
            Self::Int64 => "INT64",
            Self::Fp32 => "FP32",
            Self::Bool => "BOOL",
        }
    }

    pub(super) fn triton_name(self) -> &'static str {
        match self {
            Self::Bytes => "TYPE_STRING",
            Self::Int64 => "TYPE_INT64",
            Self::Fp32 => "TYPE_FP32",
            Self::Bool => "TYPE_BOOL",
        }
    }
}

/// A tensor by name, format and the length of its second axis, -1 where that varies. The first is the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorDescription {
    pub(super) name: &'static str,
    pub(super) datatype: Datatype,
    pub(super) width: i64,
}

const fn tensor(name: &'static str, datatype: Datatype, width: i64) -> TensorDescription {
    TensorDescription { name, datatype, width }
}

/// What can be sent: `text` or `sentences` alone, `prompt` with `response`, `image` alone or with `prompt`, or
/// `tokens` with `sequence_lengths`.
pub(super) const INPUTS: [TensorDescription; 7] = [
    tensor("text", Datatype::Bytes, 1),
    tensor("sentences", Datatype::Bytes, 1),
    tensor("prompt", Datatype::Bytes, 1),
    tensor("response", Datatype::Bytes, 1),
    tensor("image", Datatype::Bytes, 1),
    tensor("tokens", Datatype::Int64, -1),
    tensor("sequence_lengths", Datatype::Int64, 1),
];

/// What is sent back.
pub(super) const OUTPUTS: [TensorDescription; 7] = [
    tensor("rewards", Datatype::Fp32, 1),
    tensor("raw", Datatype::Fp32, 1),
    tensor("mean", Datatype::Fp32, 1),
    tensor("worst_case", Datatype::Fp32, 1),
    tensor("variance", Datatype::Fp32, 1),
    tensor("members", Datatype::Fp32, -1),
    tensor("exceeded", Datatype::Bool, 1),
];
