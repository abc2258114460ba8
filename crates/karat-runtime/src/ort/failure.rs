//! What a failed pass failed of, from ONNX Runtime's words: its error codes don't tell memory from anything else.

use crate::{Cancellation, RuntimeError};

/// How the arena, CUDA, its libraries, TensorRT and the C++ library say that memory ran out.
const OUT_OF_MEMORY: [&str; 9] = [
    "Failed to allocate memory for requested buffer",
    "is smaller than requested bytes",
    "CUDA failure 2:",
    "cudaErrorMemoryAllocation",
    "out of memory",
    "OutOfMemory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "bad_alloc",
];

/// Whether that message says that memory ran out.
fn is_out_of_memory(message: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|words| message.contains(words))
}

/// The error of a pass over so many samples, padded to so many tokens, that ended with `error`.
pub(super) fn explain(error: ::ort::Error, samples: usize, tokens: usize, cancel: &Cancellation) -> RuntimeError {
    if cancel.is_cancelled() {
        RuntimeError::Cancelled
    } else if is_out_of_memory(error.message()) {
        RuntimeError::OutOfMemory { samples, tokens, cause: error.into() }
    } else {
        RuntimeError::Pass { cause: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_other_failures() {
        for message in [
            "Non-zero status code returned while running MatMul node. Status Message: \
             /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* \
             onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Available memory of 104857600 is smaller than \
             requested bytes of 201326592",
            "Failed to allocate memory for requested buffer of size 201326592",
            "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);",
            "std::bad_alloc",
        ] {
            assert!(is_out_of_memory(message), "{message}");
        }
        for message in [
            "CUDA failure 209: no kernel image is available for execution on the device",
            "CUDA failure 700: an illegal memory access was encountered",
            "indices element out of data bounds, idx=30522 must be within the inclusive range [-30522,30521]",
        ] {
            assert!(!is_out_of_memory(message), "{message}");
        }
    }
}
