//! An encoder as a graph of padded rows: what every execution provider runs.
//!
//! | input | type | shape |
//! |---|---|---|
//! | `input_ids`, `attention_mask`, `token_type_ids` where there are several segments | int64 | `[batch, sequence]` |
//!
//! The output `logits` is `[batch, labels]`. States are `[batch · sequence, width]` between the layers, so that the
//! checkpoint's matrices are used as they lie there. The classifier reads each row's first token: in the last layer nothing
//! else is computed beyond keys and values. It computes in 32 bits, whatever the trunk computes in.

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Element, Graph,
    nodes::{Attribute, Nodes, finish, signed},
};
use crate::{
    problems::Problems,
    trunks::{
        Piece,
        deberta::{Convolution, Distances},
        encoder::Encoder,
    },
    weights::Weights,
};

/// For each pair of places, the row of their distance.
const DISTANCE_ROWS: &str = "distance_rows";

/// Writes the graph of an encoder with a trunk in that format and `labels` outputs; what doesn't fit goes into `problems`.
pub(crate) fn build(
    encoder: &Encoder,
    labels: usize,
    element: Element,
    weights: &Weights,
    problems: &mut Problems,
) -> Graph {
    let mut nodes = Nodes::new(weights, problems);
    nodes.compute_in(element);
    let mut layers = Layers::new(encoder, nodes);
    if let Some(distances) = &encoder.distances {
        layers.prepare_distances(distances);
    }
    let embedded = layers.embed();
    let mut state = embedded.clone();
    for layer in 0..encoder.layers {
        state = layers.layer(layer, &state);
        if let Some(convolution) = encoder.convolution.filter(|_| layer == 0) {
            state = layers.convolve(&convolution, &embedded, &state);
        }
    }
    if !layers.reads_first(encoder.layers.saturating_sub(1)) {
        state = layers.first(&state);
    }
    let state = layers.nodes.widened(&state);
    read_out(&mut layers.nodes, encoder, &state, labels);
    let rows = ["batch", "sequence"];
    let mut inputs = vec!["input_ids", "attention_mask"];
    if encoder.segments > 1 {
        inputs.push("token_type_ids");
    }
    let inputs = inputs.into_iter().map(|name| ValueInfoProto::tensor(name, DataType::Int64, &rows)).collect();
    let outputs = vec![ValueInfoProto::tensor("logits", DataType::Float, &["batch", &labels.to_string()])];
    finish(layers.nodes, inputs, outputs, &[])
}

struct Layers<'a> {
    encoder: &'a Encoder,
    nodes: Nodes<'a>,
    /// The shape `[batch, sequence, heads, head_dim]`.
    sizes: String,
    /// The shape `[batch, sequence, hidden]`.
    states: String,
    /// `[batch, 1, 1, sequence]`: 0, or a large negative number for padding.
    bias: String,
}

impl<'a> Layers<'a> {
    /// Adds shapes and the mask.
    fn new(encoder: &'a Encoder, mut nodes: Nodes<'a>) -> Self {
        let rows = nodes.add("Shape", &["input_ids"]);
        let heads = nodes.shape(&[signed(encoder.heads), signed(encoder.hidden / encoder.heads)]);
        let sizes = nodes.add_with("Concat", &[&rows, &heads], &[("axis", Attribute::Int(0))]);
        let width = nodes.integers("hidden", &[signed(encoder.hidden)]);
        let states = nodes.add_with("Concat", &[&rows, &width], &[("axis", Attribute::Int(0))]);
        let (one, unseen) = (nodes.number("one", 1.0), nodes.unseen());
        let axes = nodes.integers("middle_axes", &[1, 2]);
        let mask = nodes.as_numbers("attention_mask");
        let padding = nodes.add("Sub", &[&one, &mask]);
        let bias = nodes.add("Mul", &[&padding, &unseen]);
        let bias = nodes.add("Unsqueeze", &[&bias, &axes]);
        Self { encoder, nodes, sizes, states, bias }
    }

    /// Whether a layer gives the first tokens' states alone: the last one, unless neighbours are needed behind it.
    fn reads_first(&self, layer: usize) -> bool {
        layer + 1 == self.encoder.layers && !(layer == 0 && self.encoder.convolution.is_some())
    }

    /// Each row's first token, `[batch, hidden]`.
    fn first(&mut self, state: &str) -> String {
        let state = self.nodes.add("Reshape", &[state, &self.states]);
        let zero = self.nodes.integer("zero", 0);
        self.nodes.add_with("Gather", &[&state, &zero], &[("axis", Attribute::Int(1))])
    }

    /// The embeddings of tokens, positions and segments, normed: `[batch · sequence, hidden]`.
    fn embed(&mut self) -> String {
        let encoder = self.encoder;
        let names = encoder.names;
        let width = encoder.embedding;
        let tokens = self.table(names.tokens, [encoder.vocabulary, width], "input_ids");
        let mut embedded = tokens;
        if encoder.positions > 0 {
            let positions = self.positions();
            let positions = self.table(names.positions, [encoder.positions, width], &positions);
            embedded = self.nodes.add("Add", &[&embedded, &positions]);
        }
        if encoder.segments > 0 {
            // Where there is one segment, everything belongs to it, whatever the tokenizer says.
            let ids = if encoder.segments > 1 { "token_type_ids".to_owned() } else { self.nodes.integer("zero", 0) };
            let segments = self.table(names.segments, [encoder.segments, width], &ids);
            embedded = self.nodes.add("Add", &[&embedded, &segments]);
        }
        let flat = self.nodes.shape(&[-1, signed(width)]);
        let embedded = self.nodes.add("Reshape", &[&embedded, &flat]);
        let normed = self.norm(names.embedding_norm, &embedded, width);
        if width == encoder.hidden {
            return normed;
        }
        self.nodes.linear(&piece(names.projection), &normed, [encoder.hidden, width], true)
    }

    fn table(&mut self, name: &str, shape: [usize; 2], ids: &str) -> String {
        let table = self.nodes.table(&piece(name), shape);
        self.nodes.add("Gather", &[&table, ids])
    }

    /// The position of each token: its place, or its count among what isn't padding.
    fn positions(&mut self) -> String {
        let (encoder, nodes) = (self.encoder, &mut self.nodes);
        let Some(padding) = encoder.counts_behind else {
            let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
            let rows = nodes.add("Shape", &["input_ids"]);
            let length = nodes.add("Gather", &[&rows, &one]);
            return nodes.add("Range", &[&zero, &length, &one]);
        };
        let padding = nodes.integer("padding", i64::from(padding));
        let axis = nodes.integer("step", 1);
        let to_integer = [("to", Attribute::Int(DataType::Int64 as i64))];
        let is_padding = nodes.add("Equal", &["input_ids", &padding]);
        let is_text = nodes.add("Not", &[&is_padding]);
        let is_text = nodes.add_with("Cast", &[&is_text], &to_integer);
        let count = nodes.add("CumSum", &[&is_text, &axis]);
        let count = nodes.add("Mul", &[&count, &is_text]);
        nodes.add("Add", &[&count, &padding])
    }

    fn layer(&mut self, layer: usize, state: &str) -> String {
        let encoder = self.encoder;
        let names = encoder.names;
        let name = |part: &str| format!("{}{layer}.{part}", names.layer);
        let drawn = self.attention(layer, state);
        let state = if self.reads_first(layer) { self.first(state) } else { state.to_owned() };
        let square = [encoder.hidden, encoder.hidden];
        let drawn = self.nodes.linear(&piece(&name(names.drawn)), &drawn, square, true);
        let drawn = self.nodes.add("Add", &[&state, &drawn]);
        let state = self.norm(&name(names.attention_norm), &drawn, encoder.hidden);
        let shape = [encoder.intermediate, encoder.hidden];
        let inner = self.nodes.linear(&piece(&name(names.inner)), &state, shape, true);
        let inner = self.nodes.gate(encoder.activation, &inner);
        let shape = [encoder.hidden, encoder.intermediate];
        let outer = self.nodes.linear(&piece(&name(names.outer)), &inner, shape, true);
        let sum = self.nodes.add("Add", &[&state, &outer]);
        self.norm(&name(names.norm), &sum, encoder.hidden)
    }

    /// What the tokens that a layer gives draw from all that aren't padding (Vaswani et al. 2017), `[m, hidden]`.
    fn attention(&mut self, layer: usize, state: &str) -> String {
        let encoder = self.encoder;
        let names = encoder.names;
        let (heads, dim) = (signed(encoder.heads), signed(encoder.hidden / encoder.heads));
        let is_narrow = self.reads_first(layer);
        let asking = if is_narrow { self.first(state) } else { state.to_owned() };
        let asking_sizes = if is_narrow { self.nodes.shape(&[-1, 1, heads, dim]) } else { self.sizes.clone() };
        let sizes = self.sizes.clone();
        let by_head = |layers: &mut Self, part: &str, state: &str, sizes: &str, order: &[i64]| {
            let name = piece(&format!("{}{layer}.{part}", names.layer));
            let value = layers.nodes.linear(&name, state, [encoder.hidden, encoder.hidden], true);
            let value = layers.nodes.add("Reshape", &[&value, sizes]);
            layers.nodes.add_with("Transpose", &[&value], &[("perm", Attribute::Ints(order))])
        };
        let query = by_head(self, names.query, &asking, &asking_sizes, &[0, 2, 1, 3]);
        let key = by_head(self, names.key, state, &sizes, &[0, 2, 3, 1]);
        let value = by_head(self, names.value, state, &sizes, &[0, 2, 1, 3]);
        // Before they are multiplied, as half precision doesn't hold every product.
        let scale = self.nodes.number("query_scale", self.query_scale());
        let query = self.nodes.add("Mul", &[&query, &scale]);
        let mut likeness = self.nodes.add("MatMul", &[&query, &key]);
        if let Some(distances) = &encoder.distances {
            likeness = self.add_distances(layer, distances, &likeness, [&query, &key]);
        }
        let nodes = &mut self.nodes;
        let masked = nodes.add("Add", &[&likeness, &self.bias]);
        let share = nodes.add_with("Softmax", &[&masked], &[("axis", Attribute::Int(-1))]);
        let drawn = nodes.add("MatMul", &[&share, &value]);
        let drawn = nodes.add_with("Transpose", &[&drawn], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
        let flat = nodes.shape(&[-1, signed(encoder.hidden)]);
        nodes.add("Reshape", &[&drawn, &flat])
    }

    /// What likenesses of each kind are multiplied by, so that their sum has the size of one.
    fn query_scale(&self) -> f64 {
        let encoder = self.encoder;
        let kinds = encoder.distances.as_ref().map_or(1, Distances::kinds);
        ((encoder.hidden / encoder.heads * kinds) as f64).powf(-0.5)
    }

    /// Adds how content attends to distance and distance to content. `content` is the scaled queries `[batch, heads, asking,
    /// head_dim]` and the keys `[batch, heads, head_dim, sequence]`; `likeness` is `[batch, heads, asking, sequence]`.
    fn add_distances(&mut self, layer: usize, distances: &Distances, likeness: &str, content: [&str; 2]) -> String {
        let names = self.encoder.names;
        let [query, key] = content;
        let mut sum = likeness.to_owned();
        let part = |own: &'static str, shared: &'static str| if distances.shares_projections { shared } else { own };
        let mut rows = DISTANCE_ROWS.to_owned();
        if self.reads_first(layer) {
            let first = self.nodes.integers("first", &[0]);
            rows = self.nodes.add_with("Gather", &[&rows, &first], &[("axis", Attribute::Int(2))]);
        }
        if distances.content_to_position {
            let projection = part("attention.self.pos_key_proj", names.key);
            let keys = self.distances_by_head(layer, projection, &[1, 2, 0], None);
            let likeness = self.nodes.add("MatMul", &[query, &keys]);
            let likeness = self.nodes.add_with("GatherElements", &[&likeness, &rows], &[("axis", Attribute::Int(3))]);
            sum = self.nodes.add("Add", &[&sum, &likeness]);
        }
        if distances.position_to_content {
            let projection = part("attention.self.pos_query_proj", names.query);
            let queries = self.distances_by_head(layer, projection, &[1, 0, 2], Some(self.query_scale()));
            let likeness = self.nodes.add("MatMul", &[&queries, key]);
            let likeness = self.nodes.add_with("GatherElements", &[&likeness, &rows], &[("axis", Attribute::Int(2))]);
            sum = self.nodes.add("Add", &[&sum, &likeness]);
        }
        sum
    }

    /// The table of distances projected for a layer and scaled, `[distances, heads, head_dim]` with its axes in that order.
    /// It depends on weights alone, so that ONNX Runtime computes it once, on the processor: in 32 bits, which that is made
    /// for.
    fn distances_by_head(&mut self, layer: usize, projection: &str, order: &[i64], scale: Option<f64>) -> String {
        let encoder = self.encoder;
        let (heads, dim) = (signed(encoder.heads), signed(encoder.hidden / encoder.heads));
        let projection = piece(&format!("{}{layer}.{projection}", encoder.names.layer));
        let by_head = self.nodes.shape(&[-1, heads, dim]);
        self.nodes.of_32_bits(|nodes| {
            let projected = nodes.linear(&projection, "distances", [encoder.hidden, encoder.hidden], true);
            let projected = nodes.scaled(&projected, scale);
            let projected = nodes.add("Reshape", &[&projected, &by_head]);
            nodes.add_with("Transpose", &[&projected], &[("perm", Attribute::Ints(order))])
        })
    }

    /// The table of distances, and for all layers the row of each pair of places: `[batch, heads, sequence, sequence]`, as
    /// gathering wants a row for each likeness, and as numbers of 32 bits, since nothing is read more often. The table is in
    /// 32 bits: ONNX Runtime 1.31 crashes where a session starts whose products read a constant that half precision normed.
    fn prepare_distances(&mut self, distances: &Distances) {
        let encoder = self.encoder;
        let nodes = &mut self.nodes;
        let element = nodes.element();
        nodes.compute_in(Element::Float32);
        let mut table = nodes.table(&piece("deberta.encoder.rel_embeddings"), [distances.count, encoder.hidden]);
        if distances.normed {
            let norm = piece("deberta.encoder.LayerNorm");
            table = nodes.layer_norm(&norm, &table, encoder.hidden, encoder.epsilon, true);
        }
        nodes.add_into("distances", "Identity", &[&table]);
        nodes.compute_in(element);
        let rows = nodes.integers("rows_of_distances", &distances.rows);
        let middle = nodes.integer("no_distance", signed(distances.rows.len() / 2));
        let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
        let (row, column) = (nodes.shape(&[1, -1]), nodes.shape(&[-1, 1]));
        let shape = nodes.add("Shape", &["input_ids"]);
        let length = nodes.add("Gather", &[&shape, &one]);
        let places = nodes.add("Range", &[&zero, &length, &one]);
        let of_keys = nodes.add("Reshape", &[&places, &row]);
        let of_queries = nodes.add("Reshape", &[&places, &column]);
        let distance = nodes.add("Sub", &[&of_queries, &of_keys]);
        let distance = nodes.add("Add", &[&distance, &middle]);
        let rows = nodes.add("Gather", &[&rows, &distance]);
        let rows = nodes.add_with("Cast", &[&rows], &[("to", Attribute::Int(DataType::Int32 as i64))]);
        let (first, twice) = (nodes.integers("first", &[0]), nodes.integers("second_twice", &[1, 1]));
        let batch = nodes.add("Gather", &[&shape, &first]);
        let heads = nodes.integers("heads", &[signed(encoder.heads)]);
        let pairs = nodes.add("Gather", &[&shape, &twice]);
        let all = nodes.add_with("Concat", &[&batch, &heads, &pairs], &[("axis", Attribute::Int(0))]);
        nodes.add_into(DISTANCE_ROWS, "Expand", &[&rows, &all]);
    }

    /// `state` with what neighbouring embeddings give together, `[batch · sequence, hidden]`. Padding counts for 0.
    fn convolve(&mut self, convolution: &Convolution, embedded: &str, state: &str) -> String {
        let hidden = self.encoder.hidden;
        let nodes = &mut self.nodes;
        let (column, flat) = (nodes.shape(&[-1, 1]), nodes.shape(&[-1, signed(hidden)]));
        let text = nodes.as_numbers("attention_mask");
        let text = nodes.add("Reshape", &[&text, &column]);
        let rows = nodes.add("Shape", &["input_ids"]);
        let width = nodes.integers("hidden", &[signed(hidden)]);
        let sizes = nodes.add_with("Concat", &[&rows, &width], &[("axis", Attribute::Int(0))]);
        let swap = || [("perm", Attribute::Ints(&[0, 2, 1]))];
        let embedded = nodes.add("Mul", &[embedded, &text]);
        let embedded = nodes.add("Reshape", &[&embedded, &sizes]);
        let embedded = nodes.add_with("Transpose", &[&embedded], &swap());
        let given = nodes.convolution(
            &piece("deberta.encoder.conv.conv"),
            &embedded,
            [hidden, hidden / convolution.groups, convolution.size],
            convolution.groups,
        );
        let given = nodes.add_with("Transpose", &[&given], &swap());
        let given = nodes.add("Reshape", &[&given, &flat]);
        let given = nodes.add("Mul", &[&given, &text]);
        let given = nodes.gate(convolution.gate, &given);
        let sum = nodes.add("Add", &[state, &given]);
        let normed = self.norm("deberta.encoder.conv.LayerNorm", &sum, hidden);
        self.nodes.add("Mul", &[&normed, &text])
    }

    fn norm(&mut self, name: &str, value: &str, width: usize) -> String {
        self.nodes.layer_norm(&piece(name), value, width, self.encoder.epsilon, true)
    }
}

/// The classifier of a first token's state `[n, hidden]`, into `logits`.
pub(super) fn read_out(nodes: &mut Nodes<'_>, encoder: &Encoder, first: &str, labels: usize) {
    let (hidden, head) = (encoder.hidden, encoder.classifier);
    let dense = nodes.linear(&piece(head.dense), first, [hidden, hidden], true);
    let dense = nodes.gate(head.gate, &dense);
    nodes.linear_into("logits", &piece(head.last), &dense, [labels, hidden], true);
}

pub(super) fn piece(name: &str) -> Piece {
    Piece::whole(name.to_owned())
}
