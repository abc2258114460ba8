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

/// From `[1, tokens, heads, head_dim]` to `[1, heads, tokens, head_dim]`.
const HEADS_FIRST: [(&str, Attribute<'_>); 1] = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];

/// The layers of a decoder as nodes, from weights under their Hugging Face names.
pub(super) struct Layers<'a> {
    pub(super) trunk: &'a Decoder,
    pub(super) nodes: Nodes<'a>,
    /// The outputs of new keys and values.
    pub(super) presents: Vec<String>,
    /// How queries and keys are turned.
    turning: Turning,
    /// The ways in which layers turn them.
    rotations: Vec<Rotation>,
    /// For each window that layers have, the mask with what lies outside of it masked too.
    biases: BTreeMap<usize, String>,
}

/// What turns queries and keys by their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turning {
    /// The operator `RotaryEmbedding`, from cosines and sines `[1, new, head_dim / 2]`.
    Operator,
    /// Products and sums, from cosines and signed sines of both halves, `[1, new, head_dim]`.
    Steps,
}

/// The angles by which queries and keys are turned.
#[derive(Clone)]
struct Rotation {
    /// Cosines and sines of queries, which carry the scale of likenesses.
    query: [String; 2],
    /// The same of keys, without it.
    key: [String; 2],
}

/// What a layer's queries look at, and how.
struct Seen {
    /// Cosines and sines of the queries, scale included; `None` without positions.
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
            rotation = rotation.map(|parts| {
                parts.map(|value| nodes.add_with("Gather", &[&value, READS], &[("axis", Attribute::Int(1))]))
            });
            bias = nodes.add_with("Gather", &[&bias, READS], &[("axis", Attribute::Int(2))]);
        }
        let queries = self.queries(layer, &normal);
        [self.attend(&queries, &Seen { rotation, keys, values, bias }), state]
    }
}

impl<'a> Layers<'a> {
    /// Adds what all layers share.
    pub(super) fn new(trunk: &'a Decoder, mut nodes: Nodes<'a>, turning: Turning) -> Self {
        let rotations = rotations(trunk, &mut nodes, turning);
        let biases = biases(trunk, &mut nodes);
        Self { trunk, nodes, presents: Vec::new(), turning, rotations, biases }
    }

    /// How many heads of keys and values a token has.
    fn kv_heads(&self) -> usize {
        self.trunk.kv_heads * self.nodes.members()
    }

    /// The new tokens' queries, normed, `[1, m, heads, head_dim]`.
    fn queries(&mut self, layer: usize, state: &str) -> String {
        let trunk = self.trunk;
        let shape = [trunk.heads * trunk.head_dim, trunk.hidden];
        let queries = self.nodes.linear(&trunk.piece(layer, Part::Queries), state, shape, trunk.qkv_bias);
        self.normed_by_head(layer, Part::QueryNorm, &queries, trunk.heads)
    }

    /// All keys (normed and turned) and values, the past's and the new tokens', each `[KV, 1, all, head_dim]`.
    fn keys_and_values(&mut self, layer: usize, state: &str, rotation: Option<&[String; 2]>) -> [String; 2] {
        let trunk = self.trunk;
        let shape = [trunk.kv_heads * trunk.head_dim, trunk.hidden];
        let keys = self.nodes.linear(&trunk.piece(layer, Part::Keys), state, shape, trunk.qkv_bias);
        let keys = self.normed_by_head(layer, Part::KeyNorm, &keys, trunk.kv_heads);
        let values = self.nodes.linear(&trunk.piece(layer, Part::Values), state, shape, trunk.qkv_bias);
        let values = self.by_head(&values, trunk.kv_heads);
        [("key", keys, rotation), ("value", values, None)]
            .map(|(what, new, rotation)| self.after_the_past(&format!("{layer}.{what}"), &new, rotation))
    }

    /// A projection head by head, normed as the family does it.
    fn normed_by_head(&mut self, layer: usize, norm: Part, value: &str, heads: usize) -> String {
        let trunk = self.trunk;
        let piece = trunk.piece(layer, norm);
        match trunk.query_key_norm {
            QueryKeyNorm::None => self.by_head(value, heads),
            QueryKeyNorm::PerHead => {
                let value = self.by_head(value, heads);
                self.nodes.norm_by_head(&piece, &value, trunk.head_dim, trunk.norm)
            }
            QueryKeyNorm::AcrossHeads => {
                let value = self.nodes.norm(&piece, value, heads * trunk.head_dim, trunk.norm);
                self.by_head(&value, heads)
            }
        }
    }

    /// A projection head by head, `[1, tokens, members · heads, head_dim]`.
    fn by_head(&mut self, value: &str, heads: usize) -> String {
        let shape = [1, -1, signed(heads * self.nodes.members()), signed(self.trunk.head_dim)];
        let shape = self.nodes.shape(&shape);
        self.nodes.add("Reshape", &[value, &shape])
    }

    /// Gives the new tokens' keys or values `[1, new, KV, head_dim]` out, keys turned, and puts them behind the past's.
    fn after_the_past(&mut self, name: &str, new: &str, rotation: Option<&[String; 2]>) -> String {
        let shape = self.nodes.shape(&[signed(self.kv_heads()), 1, 0, signed(self.trunk.head_dim)]);
        let (nodes, turning) = (&mut self.nodes, self.turning);
        let present = format!("present.{name}");
        match rotation {
            Some(rotation) => {
                let new = nodes.add_with("Transpose", &[new], &HEADS_FIRST);
                turning.turn_into(nodes, &present, &new, rotation);
            }
            None => nodes.push("Transpose", &[new], std::slice::from_ref(&present), &HEADS_FIRST),
        }
        let past = format!("past_key_values.{name}");
        let all = nodes.add_with("Concat", &[&past, &present], &[("axis", Attribute::Int(2))]);
        self.presents.push(present);
        nodes.add("Reshape", &[&all, &shape])
    }

    /// What queries `[1, m, heads, head_dim]` draw from what they see, `[m, heads · head_dim]`.
    ///
    /// Each head is a product of its own: a library that shares products out over threads then has enough of them, also
    /// where there are few heads of keys and values.
    fn attend(&mut self, queries: &str, seen: &Seen) -> String {
        let trunk = self.trunk;
        let grouped = [signed(self.kv_heads()), signed(trunk.group()), 0, signed(trunk.head_dim)];
        let grouped = self.nodes.shape(&grouped);
        let (nodes, turning) = (&mut self.nodes, self.turning);
        let queries = nodes.add_with("Transpose", &[queries], &HEADS_FIRST);
        // Without positions, the scale that they carry stands alone.
        let queries = match &seen.rotation {
            Some(rotation) => turning.turn(nodes, &queries, rotation),
            None => nodes.scaled(&queries, Some(trunk.query_scale)),
        };
        let queries = nodes.add("Reshape", &[&queries, &grouped]);
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

impl Turning {
    /// Queries `[1, heads, new, head_dim]`, turned.
    fn turn(self, nodes: &mut Nodes<'_>, value: &str, rotation: &[String; 2]) -> String {
        let output = nodes.name("turned");
        self.turn_into(nodes, &output, value, rotation);
        output
    }

    /// The same with a name for what comes out.
    fn turn_into(self, nodes: &mut Nodes<'_>, output: &str, value: &str, rotation: &[String; 2]) {
        match self {
            Self::Operator => {
                let [cosines, sines] = rotation;
                nodes.add_into(output, "RotaryEmbedding", &[value, cosines, sines]);
            }
            Self::Steps => nodes.rotate_into(output, value, rotation),
        }
    }

    /// Cosines and sines as it takes them.
    fn rotation(self, nodes: &mut Nodes<'_>, angles: &str) -> [String; 2] {
        match self {
            Self::Operator => ["Cos", "Sin"].map(|part| nodes.add(part, &[angles])),
            Self::Steps => nodes.rotation(angles),
        }
    }

    /// What cosines and sines are multiplied by, as often as it takes them.
    fn factors(self, of_pairs: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Operator => of_pairs,
            Self::Steps => [of_pairs.as_slice(), &of_pairs].concat(),
        }
    }
}

/// The ways in which layers turn queries and keys.
fn rotations(trunk: &Decoder, nodes: &mut Nodes<'_>, turning: Turning) -> Vec<Rotation> {
    let column = nodes.shape(&[1, -1, 1]);
    let positions = nodes.as_numbers("position_ids");
    let positions = nodes.add("Reshape", &[&positions, &column]);
    let mut rotation = |(number, rope)| {
        let (frequencies, factors) = trunk.rotation(rope);
        let frequencies = nodes.numbers(&format!("inverse_frequencies_{number}"), &[frequencies.len()], &frequencies);
        let angles = nodes.add("Mul", &[&positions, &frequencies]);
        let turned = turning.rotation(nodes, &angles);
        let mut scaled = |name: String, scale: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "the graph computes in 32 bits")]
            let factors = turning.factors(factors.iter().map(|factor| (f64::from(*factor) * scale) as f32).collect());
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
