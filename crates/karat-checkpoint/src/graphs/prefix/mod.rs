//! A decoder as a graph that can share a prefix: the contract `rm-prefix/1`.
//!
//! One row of S new tokens, which may follow P earlier ones whose keys and values are handed in. The mask is an input,
//! and so are the positions: one graph reads a prompt, continues it, and scores several candidates in one row. Where
//! layers have a window, so are the positions of all P + S tokens, from which the graph tells what lies too far back. In
//! the last layer only what is read is computed beyond keys and values. Only operators of the standard are used: on a
//! processor ONNX Runtime's own, which do several steps in one, are no faster. A token that is written reads every weight
//! once, and each node beside those products costs it time: so keys and values keep the shape in which they are taken and
//! given, and where a processor computes one operator turns queries and keys. It is younger than what GPUs' providers are
//! known to run, which have it in steps.

mod layers;

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Element, Form, Graph, decoder,
    nodes::{Nodes, finish},
};
use crate::{
    classes::Pooling,
    heads::Head,
    problems::Problems,
    trunks::{Decoder, Part},
    weights::Weights,
};
use layers::{Layers, Turning};

const BIAS: &str = "attn_bias";
const KEY_POSITIONS: &str = "key_position_ids";
/// The new tokens at which outputs are read.
const READS: &str = "score_positions";

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

/// Writes the graph; what doesn't fit goes into `problems`.
pub(crate) fn build(parts: &Parts<'_>, form: Form, problems: &mut Problems) -> Graph {
    let trunk = parts.trunk;
    let mut nodes = Nodes::new(parts.weights, problems);
    let flat = nodes.shape(&[-1]);
    let ids = nodes.add("Reshape", &["input_ids", &flat]);
    let turning = if form == Form::Rows { Turning::Operator } else { Turning::Steps };
    let mut layers = Layers::new(trunk, nodes, turning);
    let [state, given] = decoder::run(&mut layers, trunk, &ids);
    let [_, state] = layers.nodes.added(trunk, &state, &given, Some((0, Part::LastNorm)));
    parts.read_out(&mut layers.nodes, &state, Element::Float32);
    close(parts, layers)
}

impl Parts<'_> {
    /// Adds the outputs that are read at tokens, from their last states `[m, hidden]` in 32 bits. Logits of a whole vocabulary
    /// are computed in the trunk's own format: their matrix is as large as many layers.
    pub(super) fn read_out(&self, nodes: &mut Nodes<'_>, state: &str, trunk: Element) {
        let element = self.element(trunk);
        if self.gives_hidden() {
            nodes.add_into("hidden", "Identity", &[state]);
        }
        let state = nodes.cast(state, element);
        nodes.compute_in(element);
        nodes.round_to(self.rounding.filter(|_| self.gives_vocabulary()));
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
        if self.gives_vocabulary() { trunk } else { Element::Float32 }
    }

    /// Whether the head gives the logits of all tokens.
    fn gives_vocabulary(&self) -> bool {
        matches!(self.head, Head::LanguageModel(model) if model.is_whole())
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
        if let Head::LanguageModel(model) = self.head {
            metadata.extend(model.columns().map(|tokens| ("karat.logits", tokens)));
        }
        metadata
    }
}

/// Closes the graph over the contract's inputs and outputs.
fn close(parts: &Parts<'_>, layers: Layers<'_>) -> Graph {
    let Layers { trunk, nodes, presents, .. } = layers;
    let (kv_heads, head_dim) = (&*parts.kv_heads().to_string(), &*trunk.head_dim.to_string());
    let float = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Float, axes);
    let integer = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Int64, axes);
    let mut input = vec![
        integer("input_ids", &["1", "new_tokens"]),
        integer("position_ids", &["1", "new_tokens"]),
        float(BIAS, &["1", "1", "new_tokens", "all_tokens"]),
        integer(READS, &["read_tokens"]),
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
