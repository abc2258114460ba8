//! A decoder as a graph that can share a prefix: the contract `rm-prefix/1`.
//!
//! One row of S new tokens, which may follow P earlier ones whose keys and values are handed in. The mask is an input,
//! and so are the positions: one graph reads a prompt, continues it, and scores several candidates in one row. Where
//! layers have a window, so are the positions of all P + S tokens, from which the graph tells what lies too far back. In
//! the last layer only what is read is computed beyond keys and values. Only standard operators are used, which every
//! execution provider knows.

use std::collections::{BTreeMap, BTreeSet};

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Element, Graph, experts,
    nodes::{Attribute, Nodes, UNSEEN, finish, signed},
};
use crate::{
    classes::Pooling,
    heads::Head,
    problems::Problems,
    trunks::{Decoder, Norms, Part, QueryKeyNorm, Sight},
    weights::Weights,
};

const BIAS: &str = "attn_bias";
const KEY_POSITIONS: &str = "key_position_ids";

/// What a graph is made of.
pub(crate) struct Parts<'a> {
    pub(crate) trunk: &'a Decoder,
    pub(crate) head: &'a Head,
    /// The token that the model takes for padding.
    pub(crate) pad_id: Option<u32>,
    /// Where the score of a whole sample stands.
    pub(crate) pooling: Pooling,
    /// The token that every sample has to end with.
    pub(crate) last_token: Option<&'a str>,
    pub(crate) weights: &'a Weights,
    /// What a graph of packed rows rounds to, where it stands in for one of 16 bits.
    pub(crate) rounding: Option<Element>,
}

/// Cosines and signed sines of queries, which carry the scale of likenesses, and of keys.
struct Rotation {
    query: [String; 2],
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

/// Writes the graph; what doesn't fit goes into `problems`.
pub(crate) fn build(parts: &Parts<'_>, problems: &mut Problems) -> Graph {
    let trunk = parts.trunk;
    let mut layers = Layers { trunk, nodes: Nodes::new(parts.weights, problems), presents: Vec::new() };
    let mut state = layers.embed();
    let rotations = layers.rotations();
    let biases = layers.biases();
    for (layer, Sight { window, rope }) in trunk.sights.iter().enumerate() {
        let rotation = rope.and_then(|rope| rotations.get(rope));
        let mut query_rotation = rotation.map(|rotation| rotation.query.clone());
        let mut bias = window.and_then(|window| biases.get(&window)).map_or(BIAS, String::as_str).to_owned();
        let mut normal = match trunk.norms {
            Norms::Before | Norms::Around | Norms::Parallel => layers.norm(layer, Part::NormBeforeAttention, &state),
            Norms::After => state.clone(),
        };
        let [keys, values] = layers.keys_and_values(layer, &normal, rotation.map(|rotation| &rotation.key));
        if layer + 1 == trunk.layers {
            let read = "score_positions";
            let gather = |nodes: &mut Nodes<'_>, value: &str| nodes.add("Gather", &[value, read]);
            state = layers.nodes.gathered(&state, trunk.hidden, read);
            normal = layers.nodes.gathered(&normal, trunk.hidden, read);
            query_rotation = query_rotation.map(|parts| parts.map(|value| gather(&mut layers.nodes, &value)));
            bias = layers.nodes.add_with("Gather", &[&bias, read], &[("axis", Attribute::Int(2))]);
        }
        state = layers.finish(layer, &state, &normal, &Seen { rotation: query_rotation, keys, values, bias });
    }
    state = layers.norm(0, Part::LastNorm, &state);
    parts.read_out(&mut layers.nodes, &state, Element::Float32);
    close(parts, layers)
}

impl Parts<'_> {
    /// Adds the outputs that are read at tokens, from their last states `[m, hidden]` in 32 bits. Logits of a vocabulary
    /// are computed in the trunk's own format: their matrix is as large as many layers.
    pub(super) fn read_out(&self, nodes: &mut Nodes<'_>, state: &str, trunk: Element) {
        let element = self.element(trunk);
        if self.gives_hidden() {
            nodes.add_into("hidden", "Identity", &[state]);
        }
        let state = nodes.cast(state, element);
        nodes.compute_in(element);
        nodes.round_to(self.rounding.filter(|_| *self.head == Head::LanguageModel));
        self.head.build(nodes, self.trunk, &state);
    }

    /// Those outputs.
    pub(super) fn outputs(&self, trunk: Element) -> Vec<ValueInfoProto> {
        let output = |name: &str, element: Element, width: usize| {
            ValueInfoProto::tensor(name, element.data_type(), &["read_tokens", &width.to_string()])
        };
        let element = self.element(trunk);
        let of_head = self.head.outputs(self.trunk, self.weights);
        let of_head = of_head.iter().map(|(name, width)| output(name, element, *width));
        let hidden = self.gives_hidden().then(|| output("hidden", Element::Float32, self.trunk.hidden));
        of_head.chain(hidden).collect()
    }

    /// Whether the state itself is an output, for heads that embed: members of an ensemble have one each.
    fn gives_hidden(&self) -> bool {
        !matches!(self.head, Head::Members(_))
    }

    /// How many heads of keys and values the host sees.
    fn kv_heads(&self) -> usize {
        self.trunk.kv_heads * self.weights.members().len().max(1)
    }

    /// The format of what the head gives.
    fn element(&self, trunk: Element) -> Element {
        if *self.head == Head::LanguageModel { trunk } else { Element::Float32 }
    }

    /// What the host has to know of the trunk, and of where a sample's score stands.
    pub(super) fn metadata(&self) -> Vec<(&'static str, String)> {
        let trunk = self.trunk;
        let mut metadata = vec![
            ("karat.layers", trunk.layers.to_string()),
            ("karat.kv_heads", self.kv_heads().to_string()),
            ("karat.head_dim", trunk.head_dim.to_string()),
            ("karat.context", trunk.context.to_string()),
        ];
        let rule = match self.pooling {
            Pooling::Last => None,
            Pooling::LastOther => Some("last_other"),
            Pooling::BeforeFirst => Some("before_first"),
        };
        if let (Some(id), Some(rule)) = (self.pad_id, rule) {
            metadata.extend([("karat.pad_id", id.to_string()), ("karat.pad_rule", rule.to_owned())]);
        }
        metadata.extend(self.last_token.map(|token| ("karat.last_token", token.to_owned())));
        if matches!(self.head, Head::Gated(_)) {
            metadata.push(("karat.gates", "at_mark".to_owned()));
        }
        metadata
    }
}

/// The layers of a decoder as nodes, from weights under their Hugging Face names.
struct Layers<'a> {
    trunk: &'a Decoder,
    nodes: Nodes<'a>,
    presents: Vec<String>,
}

impl Layers<'_> {
    /// The embedding of each token, `[tokens · members, hidden]`.
    fn embed(&mut self) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let flat = nodes.shape(&[-1]);
        let ids = nodes.add("Reshape", &["input_ids", &flat]);
        let embedded = nodes.embedded(&trunk.piece(0, Part::Embeddings), [trunk.vocabulary, trunk.hidden], &ids);
        nodes.scaled(&embedded, trunk.embedding_scale)
    }

    /// The ways in which layers turn queries and keys.
    fn rotations(&mut self) -> Vec<Rotation> {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let column = nodes.shape(&[-1, 1, 1]);
        let to_float = [("to", Attribute::Int(DataType::Float as i64))];
        let positions = nodes.add_with("Cast", &["position_ids"], &to_float);
        let positions = nodes.add("Reshape", &[&positions, &column]);
        let mut rotation = |(number, rope)| {
            let (frequencies, factors) = trunk.rotation(rope);
            let frequencies =
                nodes.numbers(&format!("inverse_frequencies_{number}"), &[frequencies.len()], &frequencies);
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
    fn biases(&mut self) -> BTreeMap<usize, String> {
        let nodes = &mut self.nodes;
        let windows: BTreeSet<usize> = self.trunk.sights.iter().filter_map(|sight| sight.window).collect();
        if windows.is_empty() {
            return BTreeMap::new();
        }
        let column = nodes.shape(&[-1, 1]);
        let unseen = nodes.number("unseen", UNSEEN);
        let queries = nodes.add("Reshape", &["position_ids", &column]);
        let distance = nodes.add("Sub", &[&queries, KEY_POSITIONS]);
        let mut bias = |window: usize| {
            let size = nodes.integer(&format!("window_{window}"), signed(window));
            let far = nodes.add("GreaterOrEqual", &[&distance, &size]);
            nodes.add("Where", &[&far, &unseen, BIAS])
        };
        windows.into_iter().map(|window| (window, bias(window))).collect()
    }

    /// `value` `[tokens, heads, head_dim]` turned; dimensions i and i + `head_dim` / 2 are a pair.
    ///
    /// A layer without positions is scaled alone, by what the rotation carries otherwise.
    fn rotate(&mut self, value: &str, rotation: Option<&[String; 2]>, scale: f64) -> String {
        let nodes = &mut self.nodes;
        match rotation {
            Some(rotation) => nodes.rotate(value, rotation),
            None => nodes.scaled(value, Some(scale)),
        }
    }

    /// All keys (rotated) and values, the past's and the new tokens', each `[KV, 1, all, head_dim]`.
    fn keys_and_values(&mut self, layer: usize, state: &str, rotation: Option<&[String; 2]>) -> [String; 2] {
        let trunk = self.trunk;
        let shape = [trunk.kv_heads * trunk.head_dim, trunk.hidden];
        let by_head = self.nodes.shape(&[-1, signed(self.kv_heads()), signed(trunk.head_dim)]);
        let key = self.nodes.linear(&trunk.piece(layer, Part::Keys), state, shape, trunk.qkv_bias);
        let key = self.by_head(layer, Part::KeyNorm, &key, trunk.kv_heads);
        let key = self.rotate(&key, rotation, 1.0);
        let value = self.nodes.linear(&trunk.piece(layer, Part::Values), state, shape, trunk.qkv_bias);
        let value = self.nodes.add("Reshape", &[&value, &by_head]);
        [("key", key), ("value", value)].map(|(what, new)| self.after_the_past(&format!("{layer}.{what}"), &new))
    }

    /// Gives the new tokens' keys or values out, and puts them behind the past's.
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

    /// How many heads of keys and values a token has.
    fn kv_heads(&self) -> usize {
        self.trunk.kv_heads * self.nodes.members()
    }

    /// What `state` `[m, hidden]` draws from what it may see, `[m, hidden]`.
    ///
    /// Each head is a product of its own: a library that shares products out over threads then has enough of them, also
    /// where there are few heads of keys and values.
    fn attention(&mut self, layer: usize, state: &str, seen: &Seen) -> String {
        let trunk = self.trunk;
        let width = trunk.heads * trunk.head_dim;
        let grouped = [0, signed(self.kv_heads()), signed(trunk.group()), signed(trunk.head_dim)];
        let grouped = self.nodes.shape(&grouped);
        let projection = trunk.piece(layer, Part::Queries);
        let query = self.nodes.linear(&projection, state, [width, trunk.hidden], trunk.qkv_bias);
        let query = self.by_head(layer, Part::QueryNorm, &query, trunk.heads);
        let query = self.rotate(&query, seen.rotation.as_ref(), trunk.query_scale);
        let nodes = &mut self.nodes;
        let query = nodes.add("Reshape", &[&query, &grouped]);
        let query = nodes.add_with("Transpose", &[&query], &[("perm", Attribute::Ints(&[1, 2, 0, 3]))]);
        let keys = nodes.add_with("Transpose", &[&seen.keys], &[("perm", Attribute::Ints(&[0, 1, 3, 2]))]);
        let mut likeness = nodes.add("MatMul", &[&query, &keys]);
        if let Some(cap) = trunk.attention_cap {
            likeness = nodes.cap(&likeness, cap);
        }
        let masked = nodes.add("Add", &[&likeness, &seen.bias]);
        let share = nodes.add_with("Softmax", &[&masked], &[("axis", Attribute::Int(-1))]);
        let drawn = nodes.add("MatMul", &[&share, &seen.values]);
        let drawn = nodes.add_with("Transpose", &[&drawn], &[("perm", Attribute::Ints(&[2, 0, 1, 3]))]);
        let flat = nodes.shape(&[-1, signed(width)]);
        let drawn = nodes.add("Reshape", &[&drawn, &flat]);
        nodes.linear(&trunk.piece(layer, Part::Drawn), &drawn, [trunk.hidden, width], trunk.output_bias)
    }

    /// The MLP, gated (Shazeer 2020, "GLU Variants Improve Transformer") or not, or experts, `[m, hidden]`.
    fn mlp(&mut self, layer: usize, state: &str) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        if let Some(experts) = trunk.experts.as_ref().filter(|experts| experts.layers.contains(&layer)) {
            return experts::build(nodes, trunk, experts, layer, state);
        }
        let inner = [trunk.intermediate, trunk.hidden];
        let mut projected = |part| nodes.linear(&trunk.piece(layer, part), state, inner, trunk.mlp_bias);
        let inner = if trunk.gated {
            let (gate, up) = (projected(Part::Gate), projected(Part::Up));
            let gate = nodes.activation(trunk.activation, &gate);
            nodes.add("Mul", &[&gate, &up])
        } else {
            let up = projected(Part::Up);
            nodes.activation(trunk.activation, &up)
        };
        nodes.linear(&trunk.piece(layer, Part::Down), &inner, [trunk.hidden, trunk.intermediate], trunk.mlp_bias)
    }

    /// One of the norms of the whole state.
    fn norm(&mut self, layer: usize, part: Part, state: &str) -> String {
        self.nodes.norm(&self.trunk.piece(layer, part), state, self.trunk.hidden, self.trunk.norm)
    }

    /// A projection head by head, `[tokens, members · heads, head_dim]`, normed as the family does it.
    fn by_head(&mut self, layer: usize, norm: Part, value: &str, heads: usize) -> String {
        let trunk = self.trunk;
        let by_head = self.nodes.shape(&[-1, signed(heads * self.nodes.members()), signed(trunk.head_dim)]);
        let piece = trunk.piece(layer, norm);
        match trunk.query_key_norm {
            QueryKeyNorm::None => self.nodes.add("Reshape", &[value, &by_head]),
            QueryKeyNorm::PerHead => {
                let value = self.nodes.add("Reshape", &[value, &by_head]);
                self.nodes.norm_by_head(&piece, &value, trunk.head_dim, trunk.norm)
            }
            QueryKeyNorm::AcrossHeads => {
                let value = self.nodes.norm(&piece, value, heads * trunk.head_dim, trunk.norm);
                self.nodes.add("Reshape", &[&value, &by_head])
            }
        }
    }

    /// The state after a layer, from the state before it and that state's norm.
    fn finish(&mut self, layer: usize, state: &str, normal: &str, seen: &Seen) -> String {
        let norms = self.trunk.norms;
        let drawn = self.attention(layer, normal, seen);
        let drawn = match norms {
            Norms::Before | Norms::Parallel => drawn,
            Norms::After | Norms::Around => self.norm(layer, Part::NormAfterAttention, &drawn),
        };
        let between = self.added(state, &drawn);
        let inner = match norms {
            Norms::Before | Norms::Around => self.norm(layer, Part::NormBeforeMlp, &between),
            Norms::After => between.clone(),
            Norms::Parallel => self.norm(layer, Part::NormBeforeMlp, state),
        };
        let given = self.mlp(layer, &inner);
        let given = match norms {
            Norms::Before | Norms::Parallel => given,
            Norms::After | Norms::Around => self.norm(layer, Part::NormAfterMlp, &given),
        };
        self.added(&between, &given)
    }

    /// A state with what attention or MLP gave.
    fn added(&mut self, state: &str, given: &str) -> String {
        let given = self.nodes.scaled(given, self.trunk.residual_scale);
        self.nodes.add("Add", &[state, &given])
    }
}

/// Closes the graph over the contract's inputs and outputs.
fn close(parts: &Parts<'_>, layers: Layers<'_>) -> Graph {
    let Layers { trunk, nodes, presents } = layers;
    let (kv_heads, head_dim) = (&*parts.kv_heads().to_string(), &*trunk.head_dim.to_string());
    let float = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Float, axes);
    let integer = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Int64, axes);
    let mut input = vec![
        integer("input_ids", &["1", "new_tokens"]),
        integer("position_ids", &["1", "new_tokens"]),
        float(BIAS, &["1", "1", "new_tokens", "all_tokens"]),
        integer("score_positions", &["read_tokens"]),
    ];
    if trunk.sights.iter().any(|sight| sight.window.is_some()) {
        input.push(integer(KEY_POSITIONS, &["1", "all_tokens"]));
    }
    let past =
        |name: &String| float(&name.replace("present", "past_key_values"), &["1", kv_heads, "past_tokens", head_dim]);
    input.extend(presents.iter().map(past));
    let mut output = parts.outputs(Element::Float32);
    output.extend(presents.iter().map(|name| float(name, &["1", kv_heads, "new_tokens", head_dim])));
    let mut metadata = vec![("karat.contract", "rm-prefix/1".to_owned()), ("karat.present", "new".to_owned())];
    metadata.extend(parts.metadata());
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
    finish(nodes, input, output, &metadata)
}
