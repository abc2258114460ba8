//! A decoder over packed rows.

use super::{
    super::{Element, Graph, Parts, experts, nodes::Nodes},
    Attention, CONTRACT, Contract, EXPAND, HeadNorms, Heads, Layer, READS, close,
};
use crate::{
    problems::Problems,
    trunks::{Decoder, NormKind, Norms, Part, QueryKeyNorm, Sight},
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

impl Layers<'_> {
    /// The states of the tokens that are read, normed, `[read_tokens, hidden]` in 32 bits.
    fn run(&mut self) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let table = [trunk.vocabulary, trunk.hidden];
        let embedded = nodes.embedded(&trunk.piece(0, Part::Embeddings), table, "input_ids");
        let mut state = nodes.scaled(&embedded, trunk.embedding_scale);
        let mut normal = match trunk.norms {
            Norms::Before | Norms::Around | Norms::Parallel => self.norm(0, Part::NormBeforeAttention, &state),
            Norms::After => state.clone(),
        };
        for (layer, sight) in trunk.sights.iter().enumerate() {
            let rows = self.rows(layer, &normal);
            let mut drawn = self.attend(layer, *sight, &rows);
            let mut contract = CONTRACT.to_owned();
            let is_last = layer + 1 == trunk.layers;
            if is_last {
                // Beyond keys and values nothing is computed that nobody reads.
                contract = self.nodes.add("Gather", &[CONTRACT, READS]);
                state = self.nodes.gathered(&state, trunk.hidden, READS);
            }
            drawn = self.nodes.add("Gather", &[&drawn, &contract]);
            drawn = self.nodes.unfolded(&drawn, self.widths()[0]);
            let [between, given] = self.finish(layer, &state, &drawn);
            if is_last {
                return self.last(&between, &given);
            }
            let next = match trunk.norms {
                Norms::Before | Norms::Around | Norms::Parallel => Some((layer + 1, Part::NormBeforeAttention)),
                Norms::After => None,
            };
            [state, normal] = self.added(&between, &given, next);
        }
        state
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

    /// The state after attention, and what the MLP gives to it.
    fn finish(&mut self, layer: usize, state: &str, drawn: &str) -> [String; 2] {
        let trunk = self.trunk;
        let drawn = self.nodes.linear(
            &trunk.piece(layer, Part::Drawn),
            drawn,
            [trunk.hidden, trunk.heads * trunk.head_dim],
            trunk.output_bias,
        );
        let drawn = match trunk.norms {
            Norms::Before | Norms::Parallel => drawn,
            Norms::After | Norms::Around => self.norm(layer, Part::NormAfterAttention, &drawn),
        };
        let [between, inner] = match trunk.norms {
            Norms::Before | Norms::Around => self.added(state, &drawn, Some((layer, Part::NormBeforeMlp))),
            Norms::After => self.added(state, &drawn, None),
            Norms::Parallel => {
                let inner = self.norm(layer, Part::NormBeforeMlp, state);
                let [between, _] = self.added(state, &drawn, None);
                [between, inner]
            }
        };
        let given = self.mlp(layer, &inner);
        let given = match trunk.norms {
            Norms::Before | Norms::Parallel => given,
            Norms::After | Norms::Around => self.norm(layer, Part::NormAfterMlp, &given),
        };
        [between, given]
    }

    /// The MLP, or experts; where the MLP is gated, gate and inner projection are one product.
    fn mlp(&mut self, layer: usize, state: &str) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        if let Some(experts) = trunk.experts.as_ref().filter(|experts| experts.layers.contains(&layer)) {
            return experts::build(nodes, trunk, experts, layer, state);
        }
        let inner = |part| (trunk.piece(layer, part), trunk.intermediate);
        let inner = if trunk.gated {
            let both = nodes.joined(&[inner(Part::Gate), inner(Part::Up)], state, trunk.hidden, trunk.mlp_bias);
            let [gate, up] = nodes.halves(&both);
            let gate = nodes.activation(trunk.activation, &gate);
            let product = nodes.add("Mul", &[&gate, &up]);
            nodes.rounded(&product)
        } else {
            let up = nodes.joined(&[inner(Part::Up)], state, trunk.hidden, trunk.mlp_bias);
            nodes.activation(trunk.activation, &up)
        };
        nodes.linear(&trunk.piece(layer, Part::Down), &inner, [trunk.hidden, trunk.intermediate], trunk.mlp_bias)
    }

    /// A state with what was given to it, and that normed, where a norm follows.
    fn added(&mut self, state: &str, given: &str, norm: Option<(usize, Part)>) -> [String; 2] {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let given = nodes.scaled(given, trunk.residual_scale);
        let piece = norm.map(|(layer, part)| trunk.piece(layer, part));
        if let Some(piece) = piece.filter(|piece| nodes.element() != Element::Float32 && !nodes.differs(piece)) {
            return nodes.fused_sum(&piece, [state, &given], trunk.hidden, trunk.norm);
        }
        let sum = nodes.add("Add", &[state, &given]);
        let sum = nodes.rounded(&sum);
        let normal = norm.map_or_else(|| sum.clone(), |(layer, part)| self.norm(layer, part, &sum));
        [sum, normal]
    }

    /// The last sum and the last norm, in 32 bits: few rows, and nothing behind them would even an error out.
    fn last(&mut self, state: &str, given: &str) -> String {
        let [state, given] = [state, given].map(|value| self.nodes.cast(value, Element::Float32));
        self.nodes.compute_in(Element::Float32);
        self.nodes.round_to(None);
        let [_, normal] = self.added(&state, &given, Some((0, Part::LastNorm)));
        normal
    }

    fn norm(&mut self, layer: usize, part: Part, state: &str) -> String {
        self.nodes.norm(&self.trunk.piece(layer, part), state, self.trunk.hidden, self.trunk.norm)
    }
}
