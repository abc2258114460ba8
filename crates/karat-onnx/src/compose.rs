//! Short ways to write what every graph is made of: with the schema's types alone, most of a line says nothing.

use crate::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};

impl ModelProto {
    /// The version of the format that [`Self::of`] writes.
    pub const IR_VERSION: i64 = 8;
    /// The version of ONNX's operators that it writes.
    pub const OPERATORS_VERSION: i64 = 17;

    /// A model of ONNX's own operators.
    #[must_use]
    pub fn of(graph: GraphProto) -> Self {
        let operators = OperatorSetIdProto { domain: None, version: Some(Self::OPERATORS_VERSION) };
        Self {
            ir_version: Some(Self::IR_VERSION),
            opset_import: vec![operators],
            graph: Some(graph),
            ..Self::default()
        }
    }
}

impl NodeProto {
    /// An operator of ONNX's own with one output; an input that is left out is an empty name.
    #[must_use]
    pub fn new(operator: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> Self {
        Self {
            op_type: Some(operator.to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..Self::default()
        }
    }
}

impl AttributeProto {
    /// A whole number.
    #[must_use]
    pub fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::of(name, AttributeType::Int) }
    }

    /// A graph, such as a loop's body.
    #[must_use]
    pub fn graph(name: &str, value: GraphProto) -> Self {
        Self { g: Some(Box::new(value)), ..Self::of(name, AttributeType::Graph) }
    }

    fn of(name: &str, kind: AttributeType) -> Self {
        Self { name: Some(name.to_owned()), r#type: Some(kind.into()), ..Self::default() }
    }
}

impl ValueInfoProto {
    /// A tensor that goes into a graph or comes out; an axis is a size, or the name of one that differs from run to
    /// run.
    #[must_use]
    pub fn tensor(name: &str, element: DataType, axes: &[&str]) -> Self {
        let axis = |axis: &&str| {
            let value = match axis.parse() {
                Ok(size) => dimension::Value::DimValue(size),
                Err(_) => dimension::Value::DimParam((*axis).to_owned()),
            };
            Dimension { value: Some(value), denotation: None }
        };
        let shape = TensorShapeProto { dim: axes.iter().map(axis).collect() };
        let tensor = type_proto::Tensor { elem_type: Some(element.into()), shape: Some(shape) };
        let value = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None };
        Self { name: Some(name.to_owned()), r#type: Some(value) }
    }
}

impl StringStringEntryProto {
    /// A key with its value.
    #[must_use]
    pub fn new(key: &str, value: &str) -> Self {
        Self { key: Some(key.to_owned()), value: Some(value.to_owned()) }
    }
}
