//! Nodes of a graph, and the names between them.

use std::collections::BTreeSet;

use karat_onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

use super::{Element, Graph, Tensor, fused::FUSED_DOMAIN, members::Whose};
use crate::{
    problems::Problems,
    trunks::{Activation, Piece, encoder::Gate},
    weights::Weights,
};

/// The operators of most graphs, and the version of files that holds them.
const VERSIONS: Versions = Versions { opset: 20, ir: 10 };
/// Those of graphs with `RotaryEmbedding`, which the standard has only since then.
const ROTARY_VERSIONS: Versions = Versions { opset: 23, ir: 11 };

/// Versions of ONNX: of its operators, and of its files.
#[derive(Debug, Clone, Copy)]
struct Versions {
    opset: i64,
    ir: i64,
}

impl Versions {
    /// The oldest that have all operators of a graph: those are the ones that providers other than the processor's know.
    fn of(nodes: &[NodeProto]) -> Self {
        let rotates = |node: &NodeProto| node.domain().is_empty() && node.op_type() == "RotaryEmbedding";
        if nodes.iter().any(rotates) { ROTARY_VERSIONS } else { VERSIONS }
    }
}

/// Collects nodes and tensors, and invents the names between them.
pub(crate) struct Nodes<'a> {
    pub(super) weights: &'a Weights,
    pub(super) problems: &'a mut Problems,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) known: BTreeSet<String>,
    /// The tensors that the checkpoint doesn't have.
    pub(super) missing: Vec<String>,
    /// What weights and constants are stored in, and so what is computed in.
    pub(super) element: Element,
    /// What operators' outputs are rounded to, in a graph that stands in for one of 16 bits.
    pub(super) rounding: Option<Element>,
    /// Whose weights are meant.
    pub(super) whose: Whose,
}

/// What a node's attribute holds.
pub(super) enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Number(f64),
    Text(&'a str),
}

impl<'a> Nodes<'a> {
    pub(super) fn new(weights: &'a Weights, problems: &'a mut Problems) -> Self {
        Self {
            weights,
            problems,
            nodes: Vec::new(),
            initializers: Vec::new(),
            tensors: Vec::new(),
            known: BTreeSet::new(),
            missing: Vec::new(),
            element: Element::Float32,
            rounding: None,
            whose: Whose::All,
        }
    }

    /// Adds a node with one output and gives that output's name.
    pub(crate) fn add(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.add_with(operator, inputs, &[])
    }

    /// Adds a node whose output has a name of its own.
    pub(crate) fn add_into(&mut self, output: &str, operator: &str, inputs: &[&str]) {
        self.push(operator, inputs, &[output.to_owned()], &[]);
    }

    pub(super) fn add_with(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        let output = self.name(operator);
        self.push(operator, inputs, std::slice::from_ref(&output), attributes);
        output
    }

    /// A name that no node's output has yet.
    pub(super) fn name(&self, of: &str) -> String {
        format!("{of}_{}", self.nodes.len())
    }

    pub(super) fn push(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[String],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let attribute = attributes.iter().map(|(name, value)| {
            let mut attribute = AttributeProto { name: Some((*name).to_owned()), ..AttributeProto::default() };
            match value {
                Attribute::Int(value) => {
                    attribute.i = Some(*value);
                    attribute.set_type(AttributeType::Int);
                }
                Attribute::Ints(values) => {
                    attribute.ints = values.to_vec();
                    attribute.set_type(AttributeType::Ints);
                }
                #[expect(clippy::cast_possible_truncation, reason = "the format holds 32 bits")]
                Attribute::Number(number) => {
                    attribute.f = Some(*number as f32);
                    attribute.set_type(AttributeType::Float);
                }
                Attribute::Text(text) => {
                    attribute.s = Some(text.as_bytes().to_vec().into());
                    attribute.set_type(AttributeType::String);
                }
            }
            attribute
        });
        self.nodes.push(NodeProto {
            op_type: Some(operator.to_owned()),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: outputs.to_vec(),
            attribute: attribute.collect(),
            ..NodeProto::default()
        });
    }

    /// Both halves of a value along its last axis.
    pub(super) fn halves(&mut self, value: &str) -> [String; 2] {
        let name = format!("Split_{}", self.nodes.len());
        let halves = [format!("{name}_first"), format!("{name}_second")];
        self.push("Split", &[value], &halves, &[("axis", Attribute::Int(-1)), ("num_outputs", Attribute::Int(2))]);
        halves
    }

    /// A value cut along its last axis into parts of these widths.
    pub(super) fn parts<const N: usize>(&mut self, value: &str, widths: [usize; N]) -> [String; N] {
        let name = format!("Split_{}", self.nodes.len());
        let parts = std::array::from_fn(|part| format!("{name}_{part}"));
        let words = widths.map(|width| width.to_string()).join("_");
        let widths = self.integers(&format!("widths_{words}"), &widths.map(signed));
        self.push("Split", &[value, &widths], &parts, &[("axis", Attribute::Int(-1))]);
        parts
    }

    /// Values side by side along their last axis.
    pub(super) fn concat(&mut self, values: &[&str]) -> String {
        self.add_with("Concat", values, &[("axis", Attribute::Int(-1))])
    }

    /// A value whose axes after the first become these.
    pub(crate) fn grouped(&mut self, value: &str, axes: &[usize]) -> String {
        let shape: Vec<i64> = std::iter::once(-1).chain(axes.iter().copied().map(signed)).collect();
        let shape = self.shape(&shape);
        self.add("Reshape", &[value, &shape])
    }

    /// A value `[n, a, b]` as `[n, b, a]`.
    pub(crate) fn swapped(&mut self, value: &str) -> String {
        self.add_with("Transpose", &[value], &[("perm", Attribute::Ints(&[0, 2, 1]))])
    }

    /// The largest numbers along the last axis and their places; how many stands in `count`.
    pub(super) fn top(&mut self, value: &str, count: &str) -> [String; 2] {
        let name = format!("TopK_{}", self.nodes.len());
        let found = [format!("{name}_values"), format!("{name}_places")];
        self.push("TopK", &[value, count], &found, &[("axis", Attribute::Int(-1))]);
        found
    }

    /// Stores numbers once under a name and gives the name.
    pub(super) fn numbers(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let (name, element) = (format!("{name}{}", self.element.suffix()), self.element);
        if self.known.contains(&name) {
            return name;
        }
        self.constant(&name, shape, element.data_type(), element.bytes(values))
    }

    /// Stores whole numbers once under a name and gives the name.
    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len()], DataType::Int64, bytes)
    }

    /// A whole number as a constant.
    pub(super) fn integer(&mut self, name: &str, value: i64) -> String {
        self.constant(name, &[], DataType::Int64, value.to_le_bytes().to_vec())
    }

    /// A number as a constant.
    #[expect(clippy::cast_possible_truncation, reason = "the graph computes in 32 bits")]
    pub(crate) fn number(&mut self, name: &str, value: f64) -> String {
        self.numbers(name, &[], &[value as f32])
    }

    fn constant(&mut self, name: &str, shape: &[usize], element: DataType, bytes: Vec<u8>) -> String {
        if self.known.insert(name.to_owned()) {
            self.initializers.push(TensorProto {
                name: Some(name.to_owned()),
                dims: dims(shape),
                data_type: Some(element.into()),
                raw_data: Some(bytes.into()),
                ..TensorProto::default()
            });
        }
        name.to_owned()
    }

    /// A constant for Reshape: 0 keeps an axis, -1 takes the rest.
    pub(super) fn shape(&mut self, sizes: &[i64]) -> String {
        let words: Vec<String> =
            sizes.iter().map(|size| if *size < 0 { "rest".to_owned() } else { size.to_string() }).collect();
        self.integers(&format!("shape_{}", words.join("_")), sizes)
    }

    /// The table that token ids choose rows of.
    pub(super) fn table(&mut self, piece: &Piece, shape: [usize; 2]) -> String {
        self.weight(&format!("{}.weight", piece.tensor), &piece.rows, &shape, false)
    }

    /// How many rows a weight has; 0 when it isn't there.
    pub(crate) fn rows(&self, name: &str) -> usize {
        self.weights.shape(self.own(name).unwrap_or(name)).and_then(|shape| shape.first().copied()).unwrap_or(0)
    }

    /// `value` `[n, columns]` times the transposed weight `[rows, columns]`, plus a bias.
    pub(crate) fn linear(&mut self, piece: &Piece, value: &str, shape: [usize; 2], bias: bool) -> String {
        if self.differs(piece) {
            return self.linear_of_members(piece, value, shape, bias);
        }
        let output = format!("Gemm_{}", self.nodes.len());
        self.product_into(&output, piece, value, shape, bias);
        let output = self.rounded(&output);
        self.adapted(piece, value, &output, shape)
    }

    /// The same with a name for what comes out.
    pub(crate) fn linear_into(&mut self, output: &str, piece: &Piece, value: &str, shape: [usize; 2], bias: bool) {
        if self.differs(piece) || self.is_adapted(piece) || self.rounding.is_some() {
            let product = self.linear(piece, value, shape, bias);
            self.add_into(output, "Identity", &[&product]);
        } else {
            self.product_into(output, piece, value, shape, bias);
        }
    }

    fn product_into(&mut self, output: &str, piece: &Piece, value: &str, shape: [usize; 2], bias: bool) {
        let weight = self.weight(&format!("{}.weight", piece.tensor), &piece.rows, &shape, false);
        let mut inputs = vec![value, &weight];
        let offset = bias.then(|| self.weight(&format!("{}.bias", piece.tensor), &piece.rows, &shape[..1], false));
        inputs.extend(offset.as_deref());
        self.push("Gemm", &inputs, &[output.to_owned()], &[("transB", Attribute::Int(1))]);
    }

    /// A value times a number, where there is one.
    pub(crate) fn scaled(&mut self, value: &str, scale: Option<f64>) -> String {
        match scale.filter(|scale| (scale - 1.0).abs() > f64::EPSILON) {
            None => value.to_owned(),
            Some(scale) => {
                let scale = self.number(&format!("scale_{scale}"), scale);
                let scale = self.rounded(&scale);
                let product = self.add("Mul", &[value, &scale]);
                self.rounded(&product)
            }
        }
    }

    /// A decoder's activation.
    pub(super) fn activation(&mut self, activation: Activation, value: &str) -> String {
        if self.element != Element::Float32 {
            return self.fused_activation(activation, value);
        }
        let active = self.plain_activation(activation, value);
        self.rounded(&active)
    }

    fn plain_activation(&mut self, activation: Activation, value: &str) -> String {
        match activation {
            Activation::Silu => {
                let share = self.add("Sigmoid", &[value]);
                self.add("Mul", &[value, &share])
            }
            Activation::Gelu => self.gate(Gate::Gelu, value),
            Activation::GeluTanh => self.gelu_tanh(value),
            Activation::ReluSquared => {
                let positive = self.add("Relu", &[value]);
                self.add("Mul", &[&positive, &positive])
            }
        }
    }

    /// The Gaussian error linear unit in its tanh form: `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
    pub(super) fn gelu_tanh(&mut self, value: &str) -> String {
        self.add_with("Gelu", &[value], &[("approximate", Attribute::Text("tanh"))])
    }

    /// An activation.
    pub(crate) fn gate(&mut self, gate: Gate, value: &str) -> String {
        match gate {
            Gate::Gelu => self.add("Gelu", &[value]),
            Gate::GeluTanh => self.gelu_tanh(value),
            Gate::QuickGelu => {
                let scaled = self.scaled(value, Some(1.702));
                let share = self.add("Sigmoid", &[&scaled]);
                self.add("Mul", &[value, &share])
            }
            Gate::Relu => self.add("Relu", &[value]),
            Gate::Tanh => self.add("Tanh", &[value]),
        }
    }

    /// Cosines and signed sines of angles, each twice along the last axis.
    pub(super) fn rotation(&mut self, angles: &str) -> [String; 2] {
        let (cosine, sine) = (self.add("Cos", &[angles]), self.add("Sin", &[angles]));
        let negative = self.add("Neg", &[&sine]);
        let last = || [("axis", Attribute::Int(-1))];
        let cosines = self.add_with("Concat", &[&cosine, &cosine], &last());
        [cosines, self.add_with("Concat", &[&negative, &sine], &last())]
    }

    /// A value whose last axis is turned; dimensions i and i + half its length are a pair.
    pub(super) fn rotate(&mut self, value: &str, rotation: &[String; 2]) -> String {
        let output = self.name("turned");
        self.rotate_into(&output, value, rotation);
        output
    }

    /// The same with a name for what comes out.
    pub(super) fn rotate_into(&mut self, output: &str, value: &str, [cosines, sines]: &[String; 2]) {
        let [first, second] = self.halves(value);
        let swapped = self.add_with("Concat", &[&second, &first], &[("axis", Attribute::Int(-1))]);
        let straight = self.add("Mul", &[value, cosines]);
        let across = self.add("Mul", &[&swapped, sines]);
        self.add_into(output, "Add", &[&straight, &across]);
    }

    /// `cap · tanh(value / cap)`.
    pub(crate) fn cap(&mut self, value: &str, cap: f64) -> String {
        let bound = self.number(&format!("cap_{cap}"), cap);
        let quotient = self.add("Div", &[value, &bound]);
        let bounded = self.add("Tanh", &[&quotient]);
        self.add("Mul", &[&bounded, &bound])
    }
}

pub(super) fn dims(shape: &[usize]) -> Vec<i64> {
    // No tensor in memory has 2⁶³ numbers.
    shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect()
}

/// Closes a graph over its inputs and outputs.
pub(super) fn finish(
    nodes: Nodes<'_>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    metadata: &[(&str, &str)],
) -> Graph {
    let Nodes { nodes, initializers, tensors, missing, problems, .. } = nodes;
    if !missing.is_empty() {
        let some = missing.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
        problems.add::<()>(format!("the checkpoint lacks {} tensors, such as {some}", missing.len()));
    }
    let operators = |domain: Option<&str>, version| OperatorSetIdProto {
        domain: domain.map(str::to_owned),
        version: Some(version),
    };
    let Versions { opset, ir } = Versions::of(&nodes);
    let mut opset_import = vec![operators(None, opset)];
    if nodes.iter().any(|node| node.domain() == FUSED_DOMAIN) {
        opset_import.push(operators(Some(FUSED_DOMAIN), 1));
    }
    let graph = GraphProto { name: Some("reward".to_owned()), node: nodes, initializer: initializers, input, output };
    let model = ModelProto {
        ir_version: Some(ir),
        opset_import,
        metadata_props: metadata.iter().map(|(key, value)| StringStringEntryProto::new(key, value)).collect(),
        ..ModelProto::of(graph)
    };
    Graph { model, tensors }
}

/// A size as ONNX writes it.
pub(super) fn signed(size: usize) -> i64 {
    // No axis in memory has 2⁶³ places.
    i64::try_from(size).unwrap_or(i64::MAX)
}
