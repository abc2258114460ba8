//! A decoder over packed rows.

use super::{
    super::{
        Element, Graph, Parts,
        decoder::{self, Looks},
        nodes::Nodes,
    },
    Attention, CONTRACT, Contract, EXPAND, HeadNorms, Heads, Layer, READS, close,
};
use crate::{
    problems::Problems,
    trunks::{Decoder, NormKind, Part, QueryKeyNorm, Sight},
};

/// Writes the graph with a trunk in that format; what doesn't fit goes into `problems`.
pub(crate) fn build(parts: &Parts<'_>, element: Element, problems: &mut Problems) -> Graph {
    let trunk = parts.trunk;
    let mut nodes = Nodes::new(parts.weights, problems);
    // To attention, members of an ensemble are further heads.
    let heads = Heads {
        heads: trunk.heads * nodes.members(),
        kv_heads: trunk.kv_heads * nodes.members(),
        head_dim: trunk.head_dim,
        scale: trunk.query_scale,
        cap: trunk.attention_cap,
        causal: true,
    };
    nodes.compute_in(element);
    nodes.round_to(parts.rounding);
    let rotations: Vec<_> = trunk.ropes.iter().map(|rope| trunk.rotation(rope)).collect();
    let attention = Attention::new(&mut nodes, heads, &rotations, trunk.context);
    let mut layers = Layers { trunk, nodes, attention, element };
    let state = layers.run();
    let mut nodes = layers.nodes;
    parts.read_out(&mut nodes, &state, element);
    let contract = Contract { heads, layers: trunk.layers, of_tokens: Vec::new(), metadata: parts.metadata() };
    close(nodes, element, contract, parts.outputs(element))
}

/// The layers of a decoder as nodes.
struct Layers<'a> {
    trunk: &'a Decoder,
    nodes: Nodes<'a>,
    attention: Attention,
    element: Element,
}

impl<'a> Looks<'a> for Layers<'a> {
    const JOINS: bool = true;

    fn nodes(&mut self) -> &mut Nodes<'a> {
        &mut self.nodes
    }

    fn look(&mut self, layer: usize, sight: Sight, mut state: String, normal: &str) -> [String; 2] {
        let rows = self.rows(layer, normal);
        let drawn = self.attend(layer, sight, &rows);
        let mut contract = CONTRACT.to_owned();
        if layer + 1 == self.trunk.layers {
            // Beyond keys and values nothing is computed that nobody reads.
            contract = self.nodes.add("Gather", &[CONTRACT, READS]);
            state = self.nodes.gathered(&state, self.trunk.hidden, READS);
        }
        let drawn = self.nodes.add("Gather", &[&drawn, &contract]);
        [self.nodes.unfolded(&drawn, self.widths()[0]), state]
    }
}

impl Layers<'_> {
    /// The states of the tokens that are read, normed, `[read_tokens, hidden]` in 32 bits: few rows, and nothing behind them
    /// would even an error out.
    fn run(&mut self) -> String {
        let trunk = self.trunk;
        let last = decoder::run(self, trunk, "input_ids");
        let [state, given] = last.map(|value| self.nodes.cast(&value, Element::Float32));
        self.nodes.compute_in(Element::Float32);
        self.nodes.round_to(None);
        let [_, normal] = self.nodes.added(trunk, &state, &given, Some((0, Part::LastNorm)));
        normal
    }

    /// Queries, keys and values side by side, normed as the family does it and the operator doesn't.
    fn rows(&mut self, layer: usize, state: &str) -> String {
        let norms_here = self.trunk.query_key_norm != QueryKeyNorm::None && !self.operator_norms();
        let widths = self.widths();
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let pieces = [Part::Queries, Part::Keys, Part::Values].map(|part| trunk.piece(layer, part));
        let pieces: Vec<_> = pieces.into_iter().zip(widths).collect();
        let joined = nodes.joined(&pieces, state, trunk.hidden, trunk.qkv_bias);
        if !norms_here && nodes.members() == 1 {
            return joined;
        }
        let [mut queries, mut keys, values] = nodes.parts(&joined, widths);
        if norms_here {
            queries = self.head_norm(layer, Part::QueryNorm, &queries, trunk.heads);
            keys = self.head_norm(layer, Part::KeyNorm, &keys, trunk.kv_heads);
        }
        let of_tokens = [(queries, widths[0]), (keys, widths[1]), (values, widths[2])]
            .map(|(value, width)| self.nodes.folded(&value, width));
        self.nodes.concat(&of_tokens.each_ref().map(String::as_str))
    }

    /// The widths of one member's queries, keys and values.
    fn widths(&self) -> [usize; 3] {
        let keys = self.trunk.kv_heads * self.trunk.head_dim;
        [self.trunk.heads * self.trunk.head_dim, keys, keys]
    }

    /// Whether `PagedAttention` norms queries and keys.
    fn operator_norms(&self) -> bool {
        let trunk = self.trunk;
        self.element != Element::Float32
            && trunk.query_key_norm == QueryKeyNorm::PerHead
            && trunk.norm.kind == NormKind::RootMeanSquare
    }

    /// Queries or keys `[tokens, heads · head_dim]`, normed.
    fn head_norm(&mut self, layer: usize, part: Part, value: &str, heads: usize) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let piece = trunk.piece(layer, part);
        let width = heads * trunk.head_dim;
        if trunk.query_key_norm == QueryKeyNorm::AcrossHeads {
            return nodes.norm(&piece, value, width, trunk.norm);
        }
        let by_head = nodes.grouped(value, &[heads, trunk.head_dim]);
        let normal = nodes.norm_by_head(&piece, &by_head, trunk.head_dim, trunk.norm);
        nodes.grouped(&normal, &[width])
    }

    /// What each row draws.
    fn attend(&mut self, layer: usize, sight: Sight, rows: &str) -> String {
        let norms = self.operator_norms().then(|| {
            let (trunk, nodes) = (self.trunk, &mut self.nodes);
            let [queries, keys] = [Part::QueryNorm, Part::KeyNorm]
                .map(|part| nodes.norm_weight(&trunk.piece(layer, part), trunk.head_dim, trunk.norm));
            HeadNorms { queries, keys, epsilon: trunk.norm.epsilon }
        });
        let layer = Layer { cache: layer, rotation: sight.rope, window: sight.window, norms };
        let rows = self.nodes.add("Gather", &[rows, EXPAND]);
        self.attention.attend(&mut self.nodes, &layer, &rows)
    }
}
