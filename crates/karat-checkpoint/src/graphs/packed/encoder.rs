//! An encoder of BERT's form over packed rows. Nothing is kept between passes, and nothing shared within one: the rows are
//! the tokens, and all layers use one pair of caches.

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    super::{
        Element, Graph,
        nodes::{Attribute, Nodes},
        padded::{piece, read_out},
    },
    Attention, Contract, Heads, Layer, READS, close,
};
use crate::{
    problems::Problems,
    trunks::{Piece, encoder::Encoder},
    weights::Weights,
};

/// The segment of each token.
const SEGMENTS: &str = "token_type_ids";
/// The place of each token in its text.
const POSITIONS: &str = "position_ids";

/// Writes the graph with a trunk in that format and `labels` outputs; what doesn't fit goes into `problems`.
pub(crate) fn build(
    encoder: &Encoder,
    labels: usize,
    element: Element,
    weights: &Weights,
    problems: &mut Problems,
) -> Graph {
    let head_dim = encoder.hidden / encoder.heads;
    let heads = Heads {
        heads: encoder.heads,
        kv_heads: encoder.heads,
        head_dim,
        scale: (head_dim as f64).powf(-0.5),
        cap: None,
        causal: false,
    };
    let mut nodes = Nodes::new(weights, problems);
    nodes.compute_in(element);
    let attention = Attention::new(&mut nodes, heads, &[], encoder.context());
    let mut layers = Layers { encoder, heads, nodes, attention };
    let mut state = layers.embed();
    for layer in 0..encoder.layers {
        state = layers.layer(layer, &state);
    }
    let mut nodes = layers.nodes;
    let state = nodes.widened(&state);
    read_out(&mut nodes, encoder, &state, labels);
    let outputs = vec![ValueInfoProto::tensor("logits", DataType::Float, &["read_tokens", &labels.to_string()])];
    let mut of_tokens = Vec::new();
    if encoder.segments > 1 {
        of_tokens.push(SEGMENTS);
    }
    if encoder.positions > 0 {
        of_tokens.push(POSITIONS);
    }
    let metadata = vec![
        ("karat.layers", encoder.layers.to_string()),
        ("karat.kv_heads", encoder.heads.to_string()),
        ("karat.head_dim", head_dim.to_string()),
        ("karat.context", encoder.context().to_string()),
    ];
    close(nodes, element, Contract { heads, layers: encoder.layers, of_tokens, metadata }, outputs)
}

struct Layers<'a> {
    encoder: &'a Encoder,
    heads: Heads,
    nodes: Nodes<'a>,
    attention: Attention,
}

impl Layers<'_> {
    /// The embeddings of tokens, positions and segments, normed: `[tokens, hidden]`.
    fn embed(&mut self) -> String {
        let encoder = self.encoder;
        let names = encoder.names;
        let width = encoder.embedding;
        let mut embedded = self.table(names.tokens, [encoder.vocabulary, width], "input_ids");
        if encoder.positions > 0 {
            let positions = self.positions();
            let positions = self.table(names.positions, [encoder.positions, width], &positions);
            embedded = self.nodes.add("Add", &[&embedded, &positions]);
        }
        if encoder.segments > 0 {
            // Where there is one segment, everything belongs to it, whatever the tokenizer says.
            let ids = if encoder.segments > 1 { SEGMENTS.to_owned() } else { self.nodes.integer("zero", 0) };
            let segments = self.table(names.segments, [encoder.segments, width], &ids);
            embedded = self.nodes.add("Add", &[&embedded, &segments]);
        }
        let normed = self.nodes.layer_norm(&piece(names.embedding_norm), &embedded, width, encoder.epsilon, true);
        if width == encoder.hidden {
            return normed;
        }
        self.nodes.linear(&piece(names.projection), &normed, [encoder.hidden, width], true)
    }

    fn table(&mut self, name: &str, shape: [usize; 2], ids: &str) -> String {
        let table = self.nodes.table(&piece(name), shape);
        self.nodes.add("Gather", &[&table, ids])
    }

    /// The row of each token in the table of positions: its place, or its count among what isn't padding.
    fn positions(&mut self) -> String {
        let (encoder, nodes) = (self.encoder, &mut self.nodes);
        let Some(padding) = encoder.counts_behind else { return POSITIONS.to_owned() };
        let padding = nodes.integer("padding", i64::from(padding));
        let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
        let is_padding = nodes.add("Equal", &["input_ids", &padding]);
        let to_long = [("to", Attribute::Int(DataType::Int64 as i64))];
        let is_text = nodes.add("Not", &[&is_padding]);
        let is_text = nodes.add_with("Cast", &[&is_text], &to_long);
        // Counted over all texts, less what was counted before the token's own.
        let count = nodes.add("CumSum", &[&is_text, &zero]);
        let before = nodes.add("Sub", &[&count, &is_text]);
        let tokens = nodes.add("Shape", &["input_ids"]);
        let tokens = nodes.add("Squeeze", &[&tokens]);
        let place = nodes.add("Range", &[&zero, &tokens, &one]);
        let first = nodes.add("Sub", &[&place, POSITIONS]);
        let before = nodes.add("Gather", &[&before, &first]);
        let count = nodes.add("Sub", &[&count, &before]);
        let count = nodes.add("Mul", &[&count, &is_text]);
        nodes.add("Add", &[&count, &padding])
    }

    fn layer(&mut self, layer: usize, state: &str) -> String {
        let encoder = self.encoder;
        let names = encoder.names;
        let name = |part: &str| piece(&format!("{}{layer}.{part}", names.layer));
        let hidden = encoder.hidden;
        let projections = [names.query, names.key, names.value].map(|part| (name(part), hidden));
        let rows = self.nodes.joined(&projections, state, hidden, true);
        let attended = Layer { cache: 0, rotation: None, window: None, norms: None };
        let mut drawn = self.attention.attend(&mut self.nodes, &attended, &rows);
        let mut state = state.to_owned();
        if layer + 1 == encoder.layers {
            // Beyond attention nothing is computed that nobody reads.
            [drawn, state] = [drawn, state].map(|value| self.nodes.add("Gather", &[&value, READS]));
        }
        let width = self.heads.widths()[0];
        let state = self.normed_sum(&name(names.attention_norm), &state, &name(names.drawn), &drawn, width);
        let inner = self.inner(&name(names.inner), &state);
        self.normed_sum(&name(names.norm), &state, &name(names.outer), &inner, encoder.intermediate)
    }

    /// The norm of a state and of what a projection of `value` `[n, width]` gives to it.
    fn normed_sum(&mut self, norm: &Piece, state: &str, projection: &Piece, value: &str, width: usize) -> String {
        let (encoder, nodes) = (self.encoder, &mut self.nodes);
        let shape = [encoder.hidden, width];
        if nodes.element() == Element::Float32 {
            let given = nodes.linear(projection, value, shape, true);
            let sum = nodes.add("Add", &[state, &given]);
            return nodes.layer_norm(norm, &sum, encoder.hidden, encoder.epsilon, true);
        }
        let given = nodes.linear(projection, value, shape, false);
        let bias = nodes.weight(&format!("{}.bias", projection.tensor), &[], &shape[..1], false);
        nodes.fused_norm_of_sum(norm, [state, &given, &bias], encoder.hidden, encoder.epsilon)
    }

    /// The MLP's inner projection and activation.
    fn inner(&mut self, projection: &Piece, state: &str) -> String {
        let (encoder, nodes) = (self.encoder, &mut self.nodes);
        let shape = [encoder.intermediate, encoder.hidden];
        if nodes.element() == Element::Float32 {
            let inner = nodes.linear(projection, state, shape, true);
            return nodes.gate(encoder.activation, &inner);
        }
        let inner = nodes.linear(projection, state, shape, false);
        let bias = nodes.weight(&format!("{}.bias", projection.tensor), &[], &shape[..1], false);
        nodes.fused_gate(encoder.activation, &inner, &bias)
    }
}
