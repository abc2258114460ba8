//! Weights that lie in files beside the graph: who reads them has to find them first.

use std::collections::BTreeSet;

use crate::{ModelProto, StringStringEntryProto, TensorProto};

impl TensorProto {
    /// What the tensor says of the file that holds its bytes, under one of ONNX's keys: `location`, a path relative to
    /// the graph's folder, `offset` and `length`, in bytes. `None` where it says nothing, as all do whose bytes are in
    /// the graph's own file.
    #[must_use]
    pub fn external(&self, key: &str) -> Option<&str> {
        self.external_data.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value)
    }
}

impl ModelProto {
    /// The files that hold weights of the graph, as paths relative to its folder, each once. They are what the graph
    /// says: they may lie outside of the folder, or not exist.
    #[must_use]
    pub fn external_files(&self) -> BTreeSet<&str> {
        let tensors = self.graph.iter().flat_map(|graph| &graph.initializer);
        tensors.filter_map(|tensor| tensor.external("location")).collect()
    }
}
