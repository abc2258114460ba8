//! A decoder as a graph that can share a prefix: the contract `rm-prefix/1`.
//!
//! One row of S new tokens, which may follow P earlier ones whose keys and values are handed in. The mask is an input,
//! and so are the positions: one graph reads a prompt, continues it, and scores several candidates in one row. In the
//! last layer only what is read is computed beyond keys and values. Only standard operators are used, which every
//! execution provider knows.

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Graph,
    nodes::{Attribute, Nodes, finish, signed},
};
use crate::{
    classes::Pooling,
    heads::{Head, Kind},
    problems::Problems,
    trunks::{Activation, Decoder, Norms, Part, QueryKeyNorm},
    weights::Weights,
};

/// What a graph is made of.
pub(crate) struct Parts<'a> {
    pub(crate) trunk: &'a Decoder,
    pub(crate) head: &'a Head,
    pub(crate) kind: Kind,
    /// The token that the model takes for padding.
    pub(crate) pad_id: Option<u32>,
    /// Where the score of a whole sample stands.
    pub(crate) pooling: Pooling,
    /// The token that every sample has to end with.
    pub(crate) last_token: Option<&'a str>,
    pub(crate) weights: &'a Weights,
}

/// What a layer's queries look at, and how.
struct Seen {
    /// Cosines and signed sines of the queries, softmax temperature included.
    rotation: [String; 2],
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
    let [mut query_rotation, key_rotation] = rotations;
    let mut bias = "attn_bias".to_owned();
    for layer in 0..trunk.layers {
        let mut normal = match trunk.norms {
            Norms::Before | Norms::Around => layers.norm(layer, Part::NormBeforeAttention, &state),
            Norms::After => state.clone(),
        };
        let [keys, values] = layers.keys_and_values(layer, &normal, &key_rotation);
        if layer + 1 == trunk.layers {
            let read = "score_positions";
            let gather = |nodes: &mut Nodes<'_>, value: &str| nodes.add("Gather", &[value, read]);
            state = gather(&mut layers.nodes, &state);
            normal = gather(&mut layers.nodes, &normal);
            query_rotation = query_rotation.map(|value| gather(&mut layers.nodes, &value));
            bias = layers.nodes.add_with("Gather", &[&bias, read], &[("axis", Attribute::Int(2))]);
        }
        let seen = Seen { rotation: query_rotation.clone(), keys, values, bias: bias.clone() };
        state = layers.finish(layer, &state, &normal, &seen);
    }
    state = layers.norm(0, Part::LastNorm, &state);
    parts.head.build(&mut layers.nodes, trunk, &state);
    if parts.kind == Kind::LanguageModel {
        layers.nodes.add_into("hidden", "Identity", &[&state]);
    }
    close(parts, layers)
}

/// The layers of a decoder as nodes, from weights under their Hugging Face names.
struct Layers<'a> {
    trunk: &'a Decoder,
    nodes: Nodes<'a>,
    presents: Vec<String>,
}

impl Layers<'_> {
    /// The embedding of each token, `[tokens, hidden]`.
    fn embed(&mut self) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let flat = nodes.shape(&[-1]);
        let ids = nodes.add("Reshape", &["input_ids", &flat]);
        let table = nodes.table(&trunk.piece(0, Part::Embeddings), [trunk.vocabulary, trunk.hidden]);
        let embedded = nodes.add("Gather", &[&table, &ids]);
        match trunk.embedding_scale {
            None => embedded,
            Some(scale) => {
                let scale = nodes.number("embedding_scale", scale);
                nodes.add("Mul", &[&embedded, &scale])
            }
        }
    }

    /// Cosines and signed sines for queries, which carry the scale of likenesses, and for keys.
    fn rotations(&mut self) -> [[String; 2]; 2] {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let frequencies = trunk.rope.inverse_frequencies(trunk.head_dim);
        let frequencies = nodes.numbers("inverse_frequencies", &[frequencies.len()], &frequencies);
        let column = nodes.shape(&[-1, 1, 1]);
        let to_float = [("to", Attribute::Int(DataType::Float as i64))];
        let positions = nodes.add_with("Cast", &["position_ids"], &to_float);
        let positions = nodes.add("Reshape", &[&positions, &column]);
        let angles = nodes.add("Mul", &[&positions, &frequencies]);
        let [cosines, sines] = nodes.rotation(&angles);
        let temperature = trunk.rope.temperature();
        let mut scaled = |name: &str, factor: f64| {
            if (factor - 1.0).abs() < f64::EPSILON {
                return [cosines.clone(), sines.clone()];
            }
            let factor = nodes.number(name, factor);
            [nodes.add("Mul", &[&cosines, &factor]), nodes.add("Mul", &[&sines, &factor])]
        };
        [scaled("query_scale", temperature * trunk.query_scale), scaled("key_scale", temperature)]
    }

    /// `value` `[tokens, heads, head_dim]` turned; dimensions i and i + `head_dim` / 2 are a pair.
    ///
    /// A layer without positions is scaled alone, by what the rotation carries otherwise.
    fn rotate(&mut self, layer: usize, value: &str, rotation: &[String; 2], scale: f64) -> String {
        let nodes = &mut self.nodes;
        if self.trunk.unrotated.contains(&layer) {
            let scale = nodes.number(&format!("scale_{scale}"), scale);
            return nodes.add("Mul", &[value, &scale]);
        }
        nodes.rotate(value, rotation)
    }

    /// All keys (rotated) and values, the past's and the new tokens', each `[KV, 1, all, head_dim]`.
    fn keys_and_values(&mut self, layer: usize, state: &str, rotation: &[String; 2]) -> [String; 2] {
        let trunk = self.trunk;
        let shape = [trunk.kv_heads * trunk.head_dim, trunk.hidden];
        let by_head = self.nodes.shape(&[0, signed(trunk.kv_heads), signed(trunk.head_dim)]);
        let key = self.nodes.linear(&trunk.piece(layer, Part::Keys), state, shape, trunk.qkv_bias);
        let key = self.by_head(layer, Part::KeyNorm, &key, trunk.kv_heads);
        let key = self.rotate(layer, &key, rotation, 1.0);
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

    /// What `state` `[m, hidden]` draws from what it may see, `[m, hidden]`.
    ///
    /// Each head is a product of its own: a library that shares products out over threads then has enough of them, also
    /// where there are few heads of keys and values.
    fn attention(&mut self, layer: usize, state: &str, seen: &Seen) -> String {
        let trunk = self.trunk;
        let width = trunk.heads * trunk.head_dim;
        let grouped = self.nodes.shape(&[0, signed(trunk.kv_heads), signed(trunk.group()), signed(trunk.head_dim)]);
        let projection = trunk.piece(layer, Part::Queries);
        let query = self.nodes.linear(&projection, state, [width, trunk.hidden], trunk.qkv_bias);
        let query = self.by_head(layer, Part::QueryNorm, &query, trunk.heads);
        let query = self.rotate(layer, &query, &seen.rotation, trunk.query_scale);
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

    /// The gated MLP (Shazeer 2020, "GLU Variants Improve Transformer"), `[m, hidden]`.
    fn mlp(&mut self, layer: usize, state: &str) -> String {
        let (trunk, nodes) = (self.trunk, &mut self.nodes);
        let inner = [trunk.intermediate, trunk.hidden];
        let gate = nodes.linear(&trunk.piece(layer, Part::Gate), state, inner, trunk.mlp_bias);
        let gate = match trunk.activation {
            Activation::Silu => {
                let share = nodes.add("Sigmoid", &[&gate]);
                nodes.add("Mul", &[&gate, &share])
            }
            Activation::GeluTanh => nodes.gelu_tanh(&gate),
        };
        let up = nodes.linear(&trunk.piece(layer, Part::Up), state, inner, trunk.mlp_bias);
        let product = nodes.add("Mul", &[&gate, &up]);
        nodes.linear(&trunk.piece(layer, Part::Down), &product, [trunk.hidden, trunk.intermediate], trunk.mlp_bias)
    }

    /// One of the norms of the whole state.
    fn norm(&mut self, layer: usize, part: Part, state: &str) -> String {
        self.nodes.rms_norm(&self.trunk.piece(layer, part), state, self.trunk.hidden, self.trunk.norm)
    }

    /// A projection head by head, `[tokens, heads, head_dim]`, normed as the family does it.
    fn by_head(&mut self, layer: usize, norm: Part, value: &str, heads: usize) -> String {
        let trunk = self.trunk;
        let by_head = self.nodes.shape(&[0, signed(heads), signed(trunk.head_dim)]);
        let piece = trunk.piece(layer, norm);
        match trunk.query_key_norm {
            QueryKeyNorm::None => self.nodes.add("Reshape", &[value, &by_head]),
            QueryKeyNorm::PerHead => {
                let value = self.nodes.add("Reshape", &[value, &by_head]);
                self.nodes.rms_norm(&piece, &value, trunk.head_dim, trunk.norm)
            }
            QueryKeyNorm::AcrossHeads => {
                let value = self.nodes.rms_norm(&piece, value, heads * trunk.head_dim, trunk.norm);
                self.nodes.add("Reshape", &[&value, &by_head])
            }
        }
    }

    /// The state after a layer, from the state before it and that state's norm.
    fn finish(&mut self, layer: usize, state: &str, normal: &str, seen: &Seen) -> String {
        let norms = self.trunk.norms;
        let mut drawn = self.attention(layer, normal, seen);
        if norms != Norms::Before {
            drawn = self.norm(layer, Part::NormAfterAttention, &drawn);
        }
        let state = self.nodes.add("Add", &[state, &drawn]);
        let inner = match norms {
            Norms::Before | Norms::Around => self.norm(layer, Part::NormBeforeMlp, &state),
            Norms::After => state.clone(),
        };
        let mut given = self.mlp(layer, &inner);
        if norms != Norms::Before {
            given = self.norm(layer, Part::NormAfterMlp, &given);
        }
        self.nodes.add("Add", &[&state, &given])
    }
}

/// Closes the graph over the contract's inputs and outputs.
fn close(parts: &Parts<'_>, layers: Layers<'_>) -> Graph {
    let Layers { trunk, nodes, presents } = layers;
    let (kv_heads, head_dim) = (&*trunk.kv_heads.to_string(), &*trunk.head_dim.to_string());
    let float = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Float, axes);
    let integer = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Int64, axes);
    let mut input = vec![
        integer("input_ids", &["1", "new_tokens"]),
        integer("position_ids", &["1", "new_tokens"]),
        float("attn_bias", &["1", "1", "new_tokens", "all_tokens"]),
        integer("score_positions", &["read_tokens"]),
    ];
    let past =
        |name: &String| float(&name.replace("present", "past_key_values"), &["1", kv_heads, "past_tokens", head_dim]);
    input.extend(presents.iter().map(past));
    let outputs = parts.head.outputs(trunk, parts.weights);
    let mut output: Vec<ValueInfoProto> =
        outputs.iter().map(|(name, width)| float(name, &["read_tokens", &width.to_string()])).collect();
    if parts.kind == Kind::LanguageModel {
        output.push(float("hidden", &["read_tokens", &trunk.hidden.to_string()]));
    }
    output.extend(presents.iter().map(|name| float(name, &["1", kv_heads, "new_tokens", head_dim])));
    let mut metadata = vec![
        ("karat.contract", "rm-prefix/1".to_owned()),
        ("karat.layers", trunk.layers.to_string()),
        ("karat.kv_heads", trunk.kv_heads.to_string()),
        ("karat.head_dim", trunk.head_dim.to_string()),
        ("karat.context", trunk.context.to_string()),
        ("karat.present", "new".to_owned()),
    ];
    let rule = match parts.pooling {
        Pooling::Last => None,
        Pooling::LastOther => Some("last_other"),
        Pooling::BeforeFirst => Some("before_first"),
    };
    if let (Some(id), Some(rule)) = (parts.pad_id, rule) {
        metadata.extend([("karat.pad_id", id.to_string()), ("karat.pad_rule", rule.to_owned())]);
    }
    metadata.extend(parts.last_token.map(|token| ("karat.last_token", token.to_owned())));
    if matches!(parts.head, Head::Gated(_)) {
        metadata.push(("karat.gates", "at_mark".to_owned()));
    }
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
    finish(nodes, input, output, &metadata)
}
