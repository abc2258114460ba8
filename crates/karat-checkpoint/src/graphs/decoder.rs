//! The layers of a decoder, whatever form its graph has: forms differ in how tokens look at each other.

use super::{Element, experts, nodes::Nodes};
use crate::trunks::{Decoder, Norms, Part, Sight};

/// How the tokens of a form look at each other.
pub(super) trait Looks<'a> {
    /// Whether projections of one state are one product: less to start on a GPU, more to take apart on a processor.
    const JOINS: bool;

    /// What is written.
    fn nodes(&mut self) -> &mut Nodes<'a>;

    /// What the tokens of `state` draw in a layer from what they see, `[m, heads · head_dim]`, and their states `[m, hidden]`:
    /// in the last layer those that are read alone. `normal` is the norm of `state`, where one stands before attention.
    fn look(&mut self, layer: usize, sight: Sight, state: String, normal: &str) -> [String; 2];
}

/// The states of the tokens that are read before the last sum, and what is added in that, `[m, hidden]` both; `ids` are the
/// tokens' `[tokens]`.
pub(super) fn run<'a, F: Looks<'a>>(form: &mut F, trunk: &Decoder, ids: &str) -> [String; 2] {
    let nodes = form.nodes();
    let table = [trunk.vocabulary, trunk.hidden];
    let embedded = nodes.embedded(&trunk.piece(0, Part::Embeddings), table, ids);
    let mut state = nodes.scaled(&embedded, trunk.embedding_scale);
    let is_normed_before = matches!(trunk.norms, Norms::Before | Norms::Around | Norms::Parallel);
    let mut normal =
        if is_normed_before { nodes.state_norm(trunk, 0, Part::NormBeforeAttention, &state) } else { state.clone() };
    let mut given = String::new();
    for (layer, sight) in trunk.sights.iter().enumerate() {
        let [drawn, own] = form.look(layer, *sight, state, &normal);
        let nodes = form.nodes();
        [state, given] = nodes.beyond_attention(trunk, layer, [&own, &drawn], F::JOINS);
        if layer + 1 < trunk.layers {
            let next = is_normed_before.then_some((layer + 1, Part::NormBeforeAttention));
            [state, normal] = nodes.added(trunk, &state, &given, next);
        }
    }
    [state, given]
}

impl Nodes<'_> {
    /// The state after attention, and what the MLP gives to it.
    fn beyond_attention(
        &mut self,
        trunk: &Decoder,
        layer: usize,
        [state, drawn]: [&str; 2],
        joins: bool,
    ) -> [String; 2] {
        let shape = [trunk.hidden, trunk.heads * trunk.head_dim];
        let drawn = self.linear(&trunk.piece(layer, Part::Drawn), drawn, shape, trunk.output_bias);
        let drawn = match trunk.norms {
            Norms::Before | Norms::Parallel => drawn,
            Norms::After | Norms::Around => self.state_norm(trunk, layer, Part::NormAfterAttention, &drawn),
        };
        let [between, inner] = match trunk.norms {
            Norms::Before | Norms::Around => self.added(trunk, state, &drawn, Some((layer, Part::NormBeforeMlp))),
            Norms::After => self.added(trunk, state, &drawn, None),
            Norms::Parallel => {
                let inner = self.state_norm(trunk, layer, Part::NormBeforeMlp, state);
                let [between, _] = self.added(trunk, state, &drawn, None);
                [between, inner]
            }
        };
        let given = self.mlp(trunk, layer, &inner, joins);
        let given = match trunk.norms {
            Norms::Before | Norms::Parallel => given,
            Norms::After | Norms::Around => self.state_norm(trunk, layer, Part::NormAfterMlp, &given),
        };
        [between, given]
    }

    /// The MLP, gated (Shazeer 2020, "GLU Variants Improve Transformer") or not, or experts, `[m, hidden]`.
    fn mlp(&mut self, trunk: &Decoder, layer: usize, state: &str, joins: bool) -> String {
        if let Some(experts) = trunk.experts.as_ref().filter(|experts| experts.layers.contains(&layer)) {
            return experts::build(self, trunk, experts, layer, state);
        }
        let shape = [trunk.intermediate, trunk.hidden];
        let inner = if trunk.gated {
            let both = [Part::Gate, Part::Up].map(|part| trunk.piece(layer, part));
            let [gate, up] = if joins {
                let both = both.map(|piece| (piece, trunk.intermediate));
                let both = self.joined(&both, state, trunk.hidden, trunk.mlp_bias);
                self.halves(&both)
            } else {
                both.map(|piece| self.linear(&piece, state, shape, trunk.mlp_bias))
            };
            let gate = self.activation(trunk.activation, &gate);
            let product = self.add("Mul", &[&gate, &up]);
            self.rounded(&product)
        } else {
            let up = self.linear(&trunk.piece(layer, Part::Up), state, shape, trunk.mlp_bias);
            self.activation(trunk.activation, &up)
        };
        self.linear(&trunk.piece(layer, Part::Down), &inner, [trunk.hidden, trunk.intermediate], trunk.mlp_bias)
    }

    /// A state with what was given to it, and that normed, where a norm follows.
    pub(super) fn added(
        &mut self,
        trunk: &Decoder,
        state: &str,
        given: &str,
        norm: Option<(usize, Part)>,
    ) -> [String; 2] {
        let given = self.scaled(given, trunk.residual_scale);
        let piece = norm.map(|(layer, part)| trunk.piece(layer, part));
        if let Some(piece) = piece.filter(|piece| self.element() != Element::Float32 && !self.differs(piece)) {
            return self.fused_sum(&piece, [state, &given], trunk.hidden, trunk.norm);
        }
        let sum = self.add("Add", &[state, &given]);
        let sum = self.rounded(&sum);
        let normal = norm.map_or_else(|| sum.clone(), |(layer, part)| self.state_norm(trunk, layer, part, &sum));
        [sum, normal]
    }

    /// One of the norms of the whole state.
    fn state_norm(&mut self, trunk: &Decoder, layer: usize, part: Part, state: &str) -> String {
        self.norm(&trunk.piece(layer, part), state, trunk.hidden, trunk.norm)
    }
}
