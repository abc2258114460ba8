//! A ModernBERT as a graph of padded rows; inputs and output are those of other encoders. Where the classifier reads each
//! row's first token, nothing else is computed in the last layer beyond keys and values. From the last norm on all is
//! computed in 32 bits, whatever the trunk computes in.

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Element, Graph,
    nodes::{Attribute, Nodes, finish, signed},
};
use crate::{
    problems::Problems,
    rope::Rope,
    trunks::{Piece, modernbert::ModernBert},
    weights::Weights,
};

/// Writes the graph with a trunk in that format and `labels` outputs; what doesn't fit goes into `problems`.
pub(crate) fn build(
    model: &ModernBert,
    labels: usize,
    element: Element,
    weights: &Weights,
    problems: &mut Problems,
) -> Graph {
    let mut nodes = Nodes::new(weights, problems);
    nodes.compute_in(element);
    let table = nodes.table(&piece("model.embeddings.tok_embeddings"), [model.vocabulary, model.hidden]);
    let embedded = nodes.add("Gather", &[&table, "input_ids"]);
    let flat = nodes.shape(&[-1, signed(model.hidden)]);
    let embedded = nodes.add("Reshape", &[&embedded, &flat]);
    let seen = prepare(&mut nodes, model);
    let mut layers = Layers { model, nodes, seen };
    let mut state = layers.norm("model.embeddings.norm", &embedded);
    for layer in 0..model.layers {
        state = layers.layer(layer, &state);
    }
    state = layers.nodes.widened(&state);
    state = layers.norm("model.final_norm", &state);
    layers.classify(&state, labels);
    let rows = ["batch", "sequence"];
    let inputs =
        ["input_ids", "attention_mask"].map(|name| ValueInfoProto::tensor(name, DataType::Int64, &rows)).to_vec();
    let outputs = vec![ValueInfoProto::tensor("logits", DataType::Float, &["batch", &labels.to_string()])];
    finish(layers.nodes, inputs, outputs, &[])
}

/// What layers that look everywhere share, and what the others do.
struct Seen {
    /// The shape `[batch, sequence, heads, head_dim]`.
    sizes: String,
    /// The shape `[batch, sequence, hidden]`.
    states: String,
    everywhere: Kind,
    nearby: Kind,
}

/// Positions and mask of a kind of layer.
struct Kind {
    /// Cosines and signed sines, `[sequence, 1, head_dim]`.
    rotation: [String; 2],
    /// 0, or a large negative number where a token may not look; broadcasts to `[batch, heads, sequence, sequence]`.
    bias: String,
}

fn prepare(nodes: &mut Nodes<'_>, model: &ModernBert) -> Seen {
    let shape = nodes.add("Shape", &["input_ids"]);
    let heads = nodes.shape(&[signed(model.heads), signed(model.hidden / model.heads)]);
    let sizes = nodes.add_with("Concat", &[&shape, &heads], &[("axis", Attribute::Int(0))]);
    let width = nodes.integers("hidden", &[signed(model.hidden)]);
    let states = nodes.add_with("Concat", &[&shape, &width], &[("axis", Attribute::Int(0))]);
    let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
    let length = nodes.add("Gather", &[&shape, &one]);
    let places = nodes.add("Range", &[&zero, &length, &one]);

    let (unit, unseen) = (nodes.number("one", 1.0), nodes.unseen());
    let mask = nodes.as_numbers("attention_mask");
    let padding = nodes.add("Sub", &[&unit, &mask]);
    let padding = nodes.add("Mul", &[&padding, &unseen]);
    let axes = nodes.integers("middle_axes", &[1, 2]);
    let everywhere = nodes.add("Unsqueeze", &[&padding, &axes]);

    let (row, column) = (nodes.shape(&[1, -1]), nodes.shape(&[-1, 1]));
    let of_keys = nodes.add("Reshape", &[&places, &row]);
    let of_queries = nodes.add("Reshape", &[&places, &column]);
    let distance = nodes.add("Sub", &[&of_queries, &of_keys]);
    let distance = nodes.add("Abs", &[&distance]);
    let reach = nodes.integer("reach", signed(model.reach));
    let far = nodes.add("Greater", &[&distance, &reach]);
    let far = nodes.as_numbers(&far);
    let far = nodes.add("Mul", &[&far, &unseen]);
    let nearby = nodes.add("Add", &[&everywhere, &far]);

    // Half precision counts no further than 2,048.
    let element = nodes.element();
    nodes.compute_in(Element::Float32);
    let column = nodes.shape(&[-1, 1, 1]);
    let places = nodes.add("Reshape", &[&places, &column]);
    let places = nodes.as_numbers(&places);
    let [global, local] = &model.ropes;
    let mut rotation = |name: &str, rope: &Rope| {
        let frequencies = rope.inverse_frequencies(model.hidden / model.heads);
        let frequencies = nodes.numbers(name, &[frequencies.len()], &frequencies);
        let angles = nodes.add("Mul", &[&places, &frequencies]);
        nodes.rotation(&angles).map(|value| nodes.cast(&value, element))
    };
    let everywhere = Kind { rotation: rotation("inverse_frequencies_everywhere", global), bias: everywhere };
    let nearby = Kind { rotation: rotation("inverse_frequencies_nearby", local), bias: nearby };
    nodes.compute_in(element);
    Seen { sizes, states, everywhere, nearby }
}

struct Layers<'a> {
    model: &'a ModernBert,
    nodes: Nodes<'a>,
    seen: Seen,
}

impl Layers<'_> {
    fn layer(&mut self, layer: usize, state: &str) -> String {
        let model = self.model;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        // The embeddings were normed already.
        let normal = if layer == 0 { state.to_owned() } else { self.norm(&name("attn_norm"), state) };
        let (hidden, inner) = (model.hidden, model.intermediate);
        let drawn = self.attention(layer, &normal);
        let wo = piece(&name("attn.Wo"));
        let drawn = self.nodes.linear(&wo, &drawn, [hidden, hidden], model.attention_bias);
        let state = if self.reads_first(layer) { self.first(state) } else { state.to_owned() };
        let state = self.nodes.add("Add", &[&state, &drawn]);
        let normal = self.norm(&name("mlp_norm"), &state);
        let part = |rows| Piece::part(name("mlp.Wi"), rows);
        let gate = self.nodes.linear(&part(0..inner), &normal, [inner, hidden], model.mlp_bias);
        let gate = self.nodes.gate(model.activation, &gate);
        let up = self.nodes.linear(&part(inner..2 * inner), &normal, [inner, hidden], model.mlp_bias);
        let product = self.nodes.add("Mul", &[&gate, &up]);
        let given = self.nodes.linear(&piece(&name("mlp.Wo")), &product, [hidden, inner], model.mlp_bias);
        self.nodes.add("Add", &[&state, &given])
    }

    /// Whether a layer gives the first tokens' states alone.
    fn reads_first(&self, layer: usize) -> bool {
        layer + 1 == self.model.layers && !self.model.reads_mean
    }

    /// Each row's first token, `[batch, hidden]`.
    fn first(&mut self, state: &str) -> String {
        let state = self.nodes.add("Reshape", &[state, &self.seen.states]);
        let zero = self.nodes.integer("zero", 0);
        self.nodes.add_with("Gather", &[&state, &zero], &[("axis", Attribute::Int(1))])
    }

    /// What the tokens that a layer gives draw from those around them or from all, `[m, hidden]`.
    fn attention(&mut self, layer: usize, state: &str) -> String {
        let model = self.model;
        let hidden = model.hidden;
        let (heads, dim) = (signed(model.heads), signed(hidden / model.heads));
        let is_narrow = self.reads_first(layer);
        let asking = if is_narrow { self.first(state) } else { state.to_owned() };
        let Self { nodes, seen, .. } = self;
        let asking_sizes = if is_narrow { nodes.shape(&[-1, 1, heads, dim]) } else { seen.sizes.clone() };
        let kind = if model.global[layer] { &seen.everywhere } else { &seen.nearby };
        let mut projected = |part: usize, state: &str, sizes: &str| {
            let piece = Piece::part(format!("model.layers.{layer}.attn.Wqkv"), part * hidden..(part + 1) * hidden);
            let value = nodes.linear(&piece, state, [hidden, hidden], model.attention_bias);
            nodes.add("Reshape", &[&value, sizes])
        };
        let mut query = projected(0, &asking, &asking_sizes);
        let [key, value] = [1, 2].map(|part| projected(part, state, &seen.sizes));
        let mut bias = kind.bias.clone();
        if is_narrow {
            // The first place turns nothing.
            let first = nodes.integers("first", &[0]);
            bias = nodes.add_with("Gather", &[&bias, &first], &[("axis", Attribute::Int(2))]);
        } else {
            query = nodes.rotate(&query, &kind.rotation);
        }
        let key = nodes.rotate(&key, &kind.rotation);
        let query = nodes.add_with("Transpose", &[&query], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
        let key = nodes.add_with("Transpose", &[&key], &[("perm", Attribute::Ints(&[0, 2, 3, 1]))]);
        let value = nodes.add_with("Transpose", &[&value], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
        let scale = nodes.number("query_scale", ((hidden / model.heads) as f64).powf(-0.5));
        let query = nodes.add("Mul", &[&query, &scale]);
        let likeness = nodes.add("MatMul", &[&query, &key]);
        let masked = nodes.add("Add", &[&likeness, &bias]);
        let share = nodes.add_with("Softmax", &[&masked], &[("axis", Attribute::Int(-1))]);
        let drawn = nodes.add("MatMul", &[&share, &value]);
        let drawn = nodes.add_with("Transpose", &[&drawn], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
        let flat = nodes.shape(&[-1, signed(hidden)]);
        nodes.add("Reshape", &[&drawn, &flat])
    }

    /// The first tokens' states, or the means of all that aren't padding, through the head into `logits`.
    fn classify(&mut self, state: &str, labels: usize) {
        let model = self.model;
        let hidden = model.hidden;
        let read = if model.reads_mean {
            let nodes = &mut self.nodes;
            let state = nodes.add("Reshape", &[state, &self.seen.states]);
            let (last, middle) = (nodes.integers("last_axis", &[-1]), nodes.integers("axis_1", &[1]));
            let text = nodes.as_numbers("attention_mask");
            let text = nodes.add("Unsqueeze", &[&text, &last]);
            let kept = nodes.add("Mul", &[&state, &text]);
            let sum = nodes.add_with("ReduceSum", &[&kept, &middle], &[("keepdims", Attribute::Int(0))]);
            let count = nodes.add_with("ReduceSum", &[&text, &middle], &[("keepdims", Attribute::Int(0))]);
            nodes.add("Div", &[&sum, &count])
        } else {
            state.to_owned()
        };
        let nodes = &mut self.nodes;
        let dense = nodes.linear(&piece("head.dense"), &read, [hidden, hidden], model.classifier_bias);
        let dense = nodes.gate(model.classifier_activation, &dense);
        let dense = self.norm("head.norm", &dense);
        self.nodes.linear_into("logits", &piece("classifier"), &dense, [labels, hidden], true);
    }

    fn norm(&mut self, name: &str, value: &str) -> String {
        let model = self.model;
        self.nodes.layer_norm(&piece(name), value, model.hidden, model.epsilon, model.norm_bias)
    }
}

fn piece(name: &str) -> Piece {
    Piece::whole(name.to_owned())
}
