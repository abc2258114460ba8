//! Tiny graphs for tests, written as ONNX files on the spot.

use std::path::PathBuf;

use prost::Message;
use tempfile::TempDir;

pub(super) use super::proto::element::{BOOL, FLOAT, FLOAT16, INT32, INT64};
use super::{Library, proto};

const IR_VERSION: i64 = 8;
const OPERATORS_VERSION: i64 = 17;

/// A graph under construction.
#[derive(Default)]
pub(super) struct GraphWriter(proto::Graph, Vec<proto::Entry>);

impl GraphWriter {
    /// Declares an input; an axis is a number or a name.
    pub(super) fn input(mut self, name: &str, element: i32, axes: &[&str]) -> Self {
        self.0.inputs.push(value(name, element, axes));
        self
    }

    /// Declares an output.
    pub(super) fn output(mut self, name: &str, element: i32, axes: &[&str]) -> Self {
        self.0.outputs.push(value(name, element, axes));
        self
    }

    /// Adds metadata to the model.
    pub(super) fn metadata(mut self, key: &str, value: &str) -> Self {
        self.1.push(proto::Entry { key: key.to_owned(), value: value.to_owned() });
        self
    }

    /// Adds a constant of floats.
    pub(super) fn floats(mut self, name: &str, shape: &[i64], floats: &[f32]) -> Self {
        self.0.initializers.push(proto::Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            element: FLOAT,
            floats: floats.to_vec(),
            ..proto::Tensor::default()
        });
        self
    }

    /// Adds a weight of 32-bit floats as most files write them, little end first.
    pub(super) fn raw(mut self, name: &str, shape: &[i64], bytes: &[u8]) -> Self {
        self.0.initializers.push(proto::Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            element: FLOAT,
            raw: bytes.to_vec().into(),
            ..proto::Tensor::default()
        });
        self
    }

    /// Adds a weight of 32-bit floats that lies in another file, from `offset` to its end.
    pub(super) fn external(mut self, name: &str, shape: &[i64], location: &str, offset: u64) -> Self {
        const EXTERNAL: i32 = 1;
        let entries = [("location", location.to_owned()), ("offset", offset.to_string())];
        self.0.initializers.push(proto::Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            element: FLOAT,
            external: entries.map(|(key, value)| proto::Entry { key: key.to_owned(), value }).to_vec(),
            location: EXTERNAL,
            ..proto::Tensor::default()
        });
        self
    }

    /// Adds a constant of integers.
    pub(super) fn integers(mut self, name: &str, integers: &[i64]) -> Self {
        self.0.initializers.push(proto::Tensor {
            name: name.to_owned(),
            shape: vec![i64::try_from(integers.len()).unwrap()],
            element: INT64,
            integers: integers.to_vec(),
            ..proto::Tensor::default()
        });
        self
    }

    /// Adds an operator with integer attributes.
    pub(super) fn node(mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> Self {
        const INT: i32 = 2;
        let attributes = attributes
            .iter()
            .map(|&(name, int)| proto::Attribute {
                name: name.to_owned(),
                int,
                kind: INT,
                ..proto::Attribute::default()
            })
            .collect();
        self.push(operator, inputs, output, attributes);
        self
    }

    /// Adds an operator with graphs as its attributes, such as `If` or `Loop`.
    pub(super) fn control(mut self, operator: &str, inputs: &[&str], output: &str, bodies: &[(&str, &Self)]) -> Self {
        const GRAPH: i32 = 5;
        let attributes = bodies
            .iter()
            .map(|(name, body)| {
                let graph = proto::Graph { name: (*name).to_owned(), ..body.0.clone() };
                proto::Attribute {
                    name: (*name).to_owned(),
                    graph: Some(Box::new(graph)),
                    kind: GRAPH,
                    ..proto::Attribute::default()
                }
            })
            .collect();
        self.push(operator, inputs, output, attributes);
        self
    }

    fn push(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<proto::Attribute>) {
        self.0.nodes.push(proto::Node {
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            operator: operator.to_owned(),
            attributes,
            domain: String::new(),
        });
    }

    /// Writes the file into a folder of its own, which goes when the guard does.
    pub(super) fn write(mut self) -> (TempDir, PathBuf) {
        self.0.name = "test".to_owned();
        let model = proto::Model {
            ir_version: IR_VERSION,
            graph: Some(self.0),
            opsets: vec![proto::OperatorSet { domain: String::new(), version: OPERATORS_VERSION }],
            metadata: self.1,
            functions: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        (folder, path)
    }
}

fn value(name: &str, element: i32, axes: &[&str]) -> proto::Value {
    let axes = axes
        .iter()
        .map(|axis| match axis.parse() {
            Ok(size) => proto::Axis { size: Some(size), name: None },
            Err(_) => proto::Axis { size: None, name: Some((*axis).to_owned()) },
        })
        .collect();
    let tensor = proto::TensorType { element, shape: Some(proto::Shape { axes }) };
    proto::Value { name: name.to_owned(), r#type: Some(proto::Type { tensor: Some(tensor) }) }
}

/// The library that `make setup` installs.
pub(super) fn library() -> Library {
    Library::load(None).expect("run `make setup` before the tests")
}
