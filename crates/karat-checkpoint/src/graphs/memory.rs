//! How much memory a graph's weights take where they are served.

use super::{Element, Graph, Tensor};

impl Graph {
    /// How many bytes the weights take in the memory of the machine. On a processor ONNX Runtime packs copies of matrices
    /// for its kernels. What it packs takes the weight's place, where one session alone (`alone`) computes with it and
    /// nothing else reads it. Elsewhere a device holds a copy, and the machine the original.
    #[must_use]
    pub fn memory(&self, on_processor: bool, alone: bool) -> u64 {
        let nodes = || self.model.graph.iter().flat_map(|graph| &graph.node);
        let packed = |name: &str| {
            nodes().any(|node| node.op_type() == "Gemm" && node.input.get(1).is_some_and(|input| input == name))
        };
        let read = |name: &str| {
            nodes().any(|node| {
                let inputs = node.input.iter().enumerate();
                inputs.into_iter().any(|(place, input)| input == name && (node.op_type() != "Gemm" || place != 1))
            })
        };
        let copies = |tensor: &Tensor| match (packed(&tensor.name), read(&tensor.name)) {
            _ if !on_processor => 1,
            (true, false) if alone => 1,
            (true, true) if alone => 2,
            // A second session packs once more before it finds it packed already.
            (true, _) => 3,
            (false, _) => 1,
        };
        let bytes = |tensor: &Tensor| {
            let number = if tensor.element == Element::Float32 { 4 } else { 2 };
            tensor.shape.iter().product::<usize>() * number * copies(tensor)
        };
        self.tensors.iter().map(bytes).sum::<usize>() as u64
    }
}
