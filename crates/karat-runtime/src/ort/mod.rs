//! [ONNX Runtime](https://onnxruntime.ai) behind [`Executor`](super::Executor); nothing else in karat names it.
//!
//! A [`Library`] is loaded once a process, opens [`Graph`]s, and each graph gives as many executors as threads want
//! to run it.

mod arena;
mod contract;
mod decoder;
mod device;
mod engines;
mod executor;
mod failure;
mod given;
mod graph;
mod inspect;
mod lent;
mod library;
mod packed;
mod pages;
mod pixels;
mod pool;
mod preload;
mod provider;
mod reads;
mod session;
#[cfg(test)]
mod testing;
mod trial;
mod weights;

pub use given::{Weight, WeightNumbersMut};
pub use graph::{BuiltGraph, Graph, GraphFile, KnownNumbers, SessionTrial, Sessions};
pub use inspect::{ModelFile, external_files};
pub use library::Library;
pub use pool::WeightShare;
