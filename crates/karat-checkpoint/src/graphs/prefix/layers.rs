//! How the tokens of a row look at each other and at what went before them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        decoder::Looks,
        nodes::{Attribute, Nodes, signed},
    },
    BIAS, KEY_POSITIONS, READS,
};
use crate::trunks::{Decoder, Part, QueryKeyNorm, Sight};

/// The layers of a decoder as nodes, from weights under their Hugging Face names.
pub(super) struct Layers<'a> {
    pub(super) trunk: &'a Decoder,
    pub(super) nodes: Nodes<'a>,
    /// The outputs of new keys and values.
    pub(super) presents: Vec<String>,
    /// The ways in which layers turn queries and keys.
    rotations: Vec<Rotation>,
    /// For each window that layers have, the mask with what lies outside of it masked too.
    biases: BTreeMap<usize, String>,
}

/// How queries and keys are turned by their positions.
#[derive(Clone)]
struct Rotation {
    /// Cosines and signed sines of queries, which carry the scale of likenesses, `[new, 1, head_dim]`.
    query: [String; 2],
    /// The same of keys, without it.
    key: [String; 2],
}

/// What a layer's queries look at, and how.
struct Seen {
    /// Cosines and signed sines of the queries, scale included; `None` without positions.
    rotation: Option<[String; 2]>,
    /// `[KV, 1, all, head_dim]`.
    keys: String,
    values: String,
    /// Broadcasts to `[KV, group, m, all]`.
    bias: String,
}

impl<'a> Looks<'a> for Layers<'a> {
    const JOINS: bool = false;

    fn nodes(&mut self) -> &mut Nodes<'a> {
        &mut self.nodes
    }

    fn look(&mut self, layer: usize, sight: Sight, mut state: String, normal: &str) -> [String; 2] {
        let trunk = self.trunk;
        let rotation = sight.rope.and_then(|rope| self.rotations.get(rope)).cloned();
        let mut bias = sight.window.and_then(|window| self.biases.get(&window)).map_or(BIAS, String::as_str).to_owned();
        let [keys, values] = self.keys_and_values(layer, normal, rotation.as_ref().map(|rotation| &rotation.key));
        let (mut normal, mut rotation) = (normal.to_owned(), rotation.map(|rotation| rotation.query));
        if layer + 1 == trunk.layers {
            let nodes = &mut self.nodes;
            state = nodes.gathered(&state, trunk.hidden, READS);
            normal = nodes.gathered(&normal, trunk.hidden, READS);
            rotation = rotation.map(|parts| parts.map(|value| nodes.add("Gather", &[&value, READS])));
            bias = nodes.add_with("Gather", &[&bias, READS], &[("axis", Attribute::Int(2))]);
        }
        let queries = self.queries(layer, &normal);
        [self.attend(&queries, &Seen { rotation, keys, values, bias }), state]
    }
}

impl<'a> Layers<'a> {
    /// Adds what all layers share.
    pub(super) fn new(trunk: &'a Decoder, mut nodes: Nodes<'a>) -> Self {
        let rotations = rotations(trunk, &mut nodes);
        let biases = biases(trunk, &mut nodes);
        Self { trunk, nodes, presents: Vec::new(), rotations, biases }
    }

    /// How many heads of keys and values a token has.
    fn kv_heads(&self) -> usize {
        self.trunk.kv_heads * self.nodes.members()
    }

    /// The new tokens' queries, normed, `[m, heads, head_dim]`.
    fn queries(&mut self, layer: usize, state: &str) -> String {
        let trunk = self.trunk;
        let shape = [trunk.heads * trunk.head_dim, trunk.hidden];
        let queries = self.nodes.linear(&trunk.piece(layer, Part::Queries), state, shape, trunk.qkv_bias);
        self.by_head(layer, Part::QueryNorm, &queries, trunk.heads)
    }

    /// All keys (normed and turned) and values, the past's and the new tokens', each `[KV, 1, all, head_dim]`.
    fn keys_and_values(&mut self, layer: usize, state: &str, rotation: Option<&[String; 2]>) -> [String; 2] {
        let trunk = self.trunk;
        let shape = [trunk.kv_heads * trunk.head_dim, trunk.hidden];
        let keys = self.nodes.linear(&trunk.piece(layer, Part::Keys), state, shape, trunk.qkv_bias);
        let mut keys = self.by_head(layer, Part::KeyNorm, &keys, trunk.kv_heads);
        if let Some(rotation) = rotation {
            keys = self.nodes.rotate(&keys, rotation);
        }
        let values = self.nodes.linear(&trunk.piece(layer, Part::Values), state, shape, trunk.qkv_bias);
        let values = self.nodes.grouped(&values, &[self.kv_heads(), trunk.head_dim]);
        [("key", keys), ("value", values)].map(|(what, new)| self.after_the_past(&format!("{layer}.{what}"), &new))
    }

    /// A projection head by head, `[tokens, members · heads, head_dim]`, normed as the family does it.
    fn by_head(&mut self, layer: usize, norm: Part, value: &str, heads: usize) -> String {
        let trunk = self.trunk;
        let by_head = [heads * self.nodes.members(), trunk.head_dim];
        let piece = trunk.piece(layer, norm);
        match trunk.query_key_norm {
            QueryKeyNorm::None => self.nodes.grouped(value, &by_head),
            QueryKeyNorm::PerHead => {
                let value = self.nodes.grouped(value, &by_head);
                self.nodes.norm_by_head(&piece, &value, trunk.head_dim, trunk.norm)
            }
            QueryKeyNorm::AcrossHeads => {
                let value = self.nodes.norm(&piece, value, heads * trunk.head_dim, trunk.norm);
                self.nodes.grouped(&value, &by_head)
            }
        }
    }

    /// Gives the new tokens' keys or values `[new, KV, head_dim]` out, and puts them behind the past's.
    fn after_the_past(&mut self, name: &str, new: &str) -> String {
        let nodes = &mut self.nodes;
        let (batch, group) = (nodes.integers("axis_0", &[0]), nodes.integers("axis_1", &[1]));
        let new = nodes.add_with("Transpose", &[new], &[("perm", Attribute::Ints(&[1, 0, 2]))]);
        let present = format!("present.{name}");
        nodes.add_into(&present, "Unsqueeze", &[&new, &batch]);
        self.presents.push(present);
        let past = nodes.add("Squeeze", &[&format!("past_key_values.{name}"), &batch]);
        let all = nodes.add_with("Concat", &[&past, &new], &[("axis", Attribute::Int(1))]);
        nodes.add("Unsqueeze", &[&all, &group])
    }

    /// What queries `[m, heads, head_dim]` draw from what they see, `[m, heads · head_dim]`.
    ///
    /// Each head is a product of its own: a library that shares products out over threads then has enough of them, also
    /// where there are few heads of keys and values.
    fn attend(&mut self, queries: &str, seen: &Seen) -> String {
        let trunk = self.trunk;
        let grouped = [0, signed(self.kv_heads()), signed(trunk.group()), signed(trunk.head_dim)];
        let grouped = self.nodes.shape(&grouped);
        let nodes = &mut self.nodes;
        // Without positions, the scale that they carry stands alone.
        let queries = match &seen.rotation {
            Some(rotation) => nodes.rotate(queries, rotation),
            None => nodes.scaled(queries, Some(trunk.query_scale)),
        };
        let queries = nodes.add("Reshape", &[&queries, &grouped]);
        let queries = nodes.add_with("Transpose", &[&queries], &[("perm", Attribute::Ints(&[1, 2, 0, 3]))]);
        let keys = nodes.add_with("Transpose", &[&seen.keys], &[("perm", Attribute::Ints(&[0, 1, 3, 2]))]);
        let mut likeness = nodes.add("MatMul", &[&queries, &keys]);
        if let Some(cap) = trunk.attention_cap {
            likeness = nodes.cap(&likeness, cap);
        }
        let masked = nodes.add("Add", &[&likeness, &seen.bias]);
        let share = nodes.add_with("Softmax", &[&masked], &[("axis", Attribute::Int(-1))]);
        let drawn = nodes.add("MatMul", &[&share, &seen.values]);
        let drawn = nodes.add_with("Transpose", &[&drawn], &[("perm", Attribute::Ints(&[2, 0, 1, 3]))]);
        nodes.grouped(&drawn, &[trunk.heads * trunk.head_dim])
    }
}

/// The ways in which layers turn queries and keys.
fn rotations(trunk: &Decoder, nodes: &mut Nodes<'_>) -> Vec<Rotation> {
    let column = nodes.shape(&[-1, 1, 1]);
    let positions = nodes.as_numbers("position_ids");
    let positions = nodes.add("Reshape", &[&positions, &column]);
    let mut rotation = |(number, rope)| {
        let (frequencies, factors) = trunk.rotation(rope);
        let frequencies = nodes.numbers(&format!("inverse_frequencies_{number}"), &[frequencies.len()], &frequencies);
        let angles = nodes.add("Mul", &[&positions, &frequencies]);
        let turned = nodes.rotation(&angles);
        let mut scaled = |name: String, scale: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "the graph computes in 32 bits")]
            let factors: Vec<f32> =
                factors.iter().chain(&factors).map(|factor| (f64::from(*factor) * scale) as f32).collect();
            if factors.iter().all(|factor| (factor - 1.0).abs() < f32::EPSILON) {
                return turned.clone();
            }
            let factors = nodes.numbers(&name, &[factors.len()], &factors);
            [nodes.add("Mul", &[&turned[0], &factors]), nodes.add("Mul", &[&turned[1], &factors])]
        };
        Rotation {
            query: scaled(format!("query_scale_{number}"), trunk.query_scale),
            key: scaled(format!("key_scale_{number}"), 1.0),
        }
    };
    trunk.ropes.iter().enumerate().map(&mut rotation).collect()
}

/// For each window that layers have, the mask with what lies outside of it masked too.
fn biases(trunk: &Decoder, nodes: &mut Nodes<'_>) -> BTreeMap<usize, String> {
    let windows: BTreeSet<usize> = trunk.sights.iter().filter_map(|sight| sight.window).collect();
    if windows.is_empty() {
        return BTreeMap::new();
    }
    let column = nodes.shape(&[-1, 1]);
    let unseen = nodes.unseen();
    let queries = nodes.add("Reshape", &["position_ids", &column]);
    let distance = nodes.add("Sub", &[&queries, KEY_POSITIONS]);
    let mut bias = |window: usize| {
        let size = nodes.integer(&format!("window_{window}"), signed(window));
        let far = nodes.add("GreaterOrEqual", &[&distance, &size]);
        nodes.add("Where", &[&far, &unseen, BIAS])
    };
    windows.into_iter().map(|window| (window, bias(window))).collect()
}
