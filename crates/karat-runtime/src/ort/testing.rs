//! Tiny graphs for tests, written as ONNX files on the spot.

use std::path::PathBuf;

pub(super) use karat_onnx::tensor_proto::DataType;
use karat_onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    tensor_proto::DataLocation,
};
use prost::Message;
use tempfile::TempDir;

use super::Library;
use crate::GraphBinding;

/// A graph under construction.
#[derive(Default)]
pub(super) struct GraphWriter {
    graph: GraphProto,
    metadata: Vec<StringStringEntryProto>,
}

impl GraphWriter {
    /// Declares an input; an axis is a number or a name.
    pub(super) fn input(mut self, name: &str, element: DataType, axes: &[&str]) -> Self {
        self.graph.input.push(ValueInfoProto::tensor(name, element, axes));
        self
    }

    /// Declares an output.
    pub(super) fn output(mut self, name: &str, element: DataType, axes: &[&str]) -> Self {
        self.graph.output.push(ValueInfoProto::tensor(name, element, axes));
        self
    }

    /// Adds metadata to the model.
    pub(super) fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.push(StringStringEntryProto::new(key, value));
        self
    }

    /// Adds a constant of floats.
    pub(super) fn floats(self, name: &str, shape: &[i64], floats: &[f32]) -> Self {
        self.constant(TensorProto { float_data: floats.to_vec(), ..tensor(name, DataType::Float, shape) })
    }

    /// Adds a weight of 32-bit floats as most files write them, little end first.
    pub(super) fn raw(self, name: &str, shape: &[i64], bytes: &[u8]) -> Self {
        self.constant(TensorProto { raw_data: Some(bytes.to_vec().into()), ..tensor(name, DataType::Float, shape) })
    }

    /// Adds a weight of 32-bit floats that lies in another file, from `offset` to its end.
    pub(super) fn external(self, name: &str, shape: &[i64], location: &str, offset: u64) -> Self {
        self.constant(TensorProto {
            external_data: vec![
                StringStringEntryProto::new("location", location),
                StringStringEntryProto::new("offset", &offset.to_string()),
            ],
            data_location: Some(DataLocation::External.into()),
            ..tensor(name, DataType::Float, shape)
        })
    }

    /// Adds a constant of integers.
    pub(super) fn integers(self, name: &str, integers: &[i64]) -> Self {
        let shape = [i64::try_from(integers.len()).unwrap()];
        self.constant(TensorProto { int64_data: integers.to_vec(), ..tensor(name, DataType::Int64, &shape) })
    }

    fn constant(mut self, tensor: TensorProto) -> Self {
        self.graph.initializer.push(tensor);
        self
    }

    /// Adds an operator with integer attributes.
    pub(super) fn node(self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> Self {
        let attributes = attributes.iter().map(|&(name, int)| AttributeProto::int(name, int));
        self.operator(NodeProto::new(operator, inputs, output, attributes.collect()))
    }

    /// Adds an operator that casts to `element`.
    pub(super) fn cast(self, input: &str, output: &str, element: DataType) -> Self {
        self.node("Cast", &[input], output, &[("to", i32::from(element).into())])
    }

    /// Adds an operator with graphs as its attributes, such as `If` or `Loop`.
    pub(super) fn control(self, operator: &str, inputs: &[&str], output: &str, bodies: &[(&str, &Self)]) -> Self {
        let attributes = bodies.iter().map(|&(name, body)| {
            AttributeProto::graph(name, GraphProto { name: Some(name.to_owned()), ..body.graph.clone() })
        });
        self.operator(NodeProto::new(operator, inputs, output, attributes.collect()))
    }

    fn operator(mut self, node: NodeProto) -> Self {
        self.graph.node.push(node);
        self
    }

    /// The graph in memory.
    pub(super) fn model(self) -> ModelProto {
        let graph = GraphProto { name: Some("test".to_owned()), ..self.graph };
        ModelProto { metadata_props: self.metadata, ..ModelProto::of(graph) }
    }

    /// Writes the file into a folder of its own, which goes when the guard does.
    pub(super) fn write(self) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, self.model().encode_to_vec()).unwrap();
        (folder, path)
    }
}

fn tensor(name: &str, element: DataType, shape: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(element.into()),
        dims: shape.to_vec(),
        ..TensorProto::default()
    }
}

/// The library that `make setup` installs.
pub(super) fn library() -> Library {
    Library::load(None).expect("run `make setup` before the tests")
}

/// The binding of a graph that takes ids alone and gives `scores`.
pub(super) fn ids_to_scores() -> GraphBinding {
    GraphBinding {
        input_ids: "input_ids".to_owned(),
        attention_mask: None,
        token_type_ids: None,
        position_ids: None,
        outputs: vec!["scores".to_owned()],
        pad_id: 0,
    }
}
