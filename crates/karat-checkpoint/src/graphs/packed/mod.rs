//! Packed rows over blocks of keys and values: the contract `rm-packed/1`.
//!
//! All sequences of a pass stand in one row, without padding: norms, projections and MLPs see each token once. Attention
//! sees the row that `expand` makes of it, writes all of its keys and values into blocks, and only then lets each token
//! look at the blocks of its own sequence. So candidates may see what the prompt before them has just written; what of a
//! prompt doesn't fill a block is repeated before each candidate, in a block of the candidate's own.
//!
//! There are two attentions with the same inputs and outputs: in 16 bits the operator `PagedAttention`, which ONNX Runtime
//! has for NVIDIA GPUs alone, in 32 bits one of standard operators, which runs everywhere.

mod decoder;
mod encoder;
mod paged;
mod standard;

use karat_onnx::{ValueInfoProto, tensor_proto::DataType};

use super::{
    Element, Graph,
    nodes::{Nodes, finish},
};
use paged::Paged;
use standard::Standard;

pub(crate) use decoder::build as decoder;
pub(crate) use encoder::build as encoder;

/// How many tokens a block holds: FlashAttention takes no other number.
const BLOCK_TOKENS: usize = 256;
/// The head sizes that FlashAttention takes: multiples of the one, up to the other.
const HEAD_STEP: usize = 8;
const LARGEST_HEAD: usize = 256;

/// For each row that attention sees, its token.
const EXPAND: &str = "expand";
/// For each token, its row.
const CONTRACT: &str = "contract";
/// Where each sequence's rows begin, and how many rows there are.
const ROW_STARTS: &str = "cumulative_sequence_length";
/// How many tokens go before each sequence's rows.
const PASTS: &str = "past_seqlens";
/// The blocks of each sequence.
const BLOCKS: &str = "block_table";
/// The most rows of a sequence, and the most with its past.
const LONGEST: &str = "attention_metadata";
/// The tokens at which outputs are read.
const READS: &str = "score_positions";

/// Whether `PagedAttention` takes heads of that size.
pub(crate) fn takes_heads(head_dim: usize) -> bool {
    head_dim.is_multiple_of(HEAD_STEP) && head_dim <= LARGEST_HEAD
}

/// What attention is the same in all layers.
#[derive(Debug, Clone, Copy)]
struct Heads {
    /// How many query heads a layer.
    heads: usize,
    /// How many heads of keys and values; divides `heads`.
    kv_heads: usize,
    /// The width of a head.
    head_dim: usize,
    /// What likenesses are multiplied by.
    scale: f64,
    /// The bound of likenesses.
    cap: Option<f64>,
    /// Whether a token sees only those before it and itself.
    causal: bool,
}

impl Heads {
    /// The widths of queries, keys and values side by side.
    fn widths(&self) -> [usize; 3] {
        let keys = self.kv_heads * self.head_dim;
        [self.heads * self.head_dim, keys, keys]
    }
}

/// One rotation of queries and keys: radians a position of each pair of dimensions, and what cosine and sine are
/// multiplied by.
type Rotation = (Vec<f32>, Vec<f32>);

/// What attention differs in from layer to layer.
#[derive(Debug, Clone)]
struct Layer {
    /// Which caches it uses.
    cache: usize,
    /// Which of the rotations queries and keys turn by; `None` without positions.
    rotation: Option<usize>,
    /// How many tokens each token sees, itself included; all where there is no window.
    window: Option<usize>,
    /// The weights that queries and keys are normed with head by head, where the operator does that.
    norms: Option<HeadNorms>,
}

/// Norms of queries and keys, head by head.
#[derive(Debug, Clone)]
struct HeadNorms {
    queries: String,
    keys: String,
    epsilon: f64,
}

/// The attention of a graph.
enum Attention {
    Paged(Paged),
    Standard(Standard),
}

impl Attention {
    /// Adds what all layers share. `context` is the longest text.
    fn new(nodes: &mut Nodes<'_>, heads: Heads, rotations: &[Rotation], context: usize) -> Self {
        match nodes.element() {
            Element::Float32 => Self::Standard(Standard::new(nodes, heads, rotations)),
            Element::Float16 | Element::Bfloat16 => Self::Paged(Paged::new(nodes, heads, rotations, context)),
        }
    }

    /// What each row draws, `[rows, heads · head_dim]`, from its sequence; `rows` are queries, keys and values side by
    /// side.
    fn attend(&self, nodes: &mut Nodes<'_>, layer: &Layer, rows: &str) -> String {
        match self {
            Self::Paged(paged) => paged.attend(nodes, layer, rows),
            Self::Standard(standard) => standard.attend(nodes, layer, rows),
        }
    }
}

/// The names of a layer's caches, keys before values, as inputs and as outputs.
fn caches(layer: usize) -> [[String; 2]; 2] {
    ["key", "value"].map(|what| [format!("{what}_cache.{layer}"), format!("{what}_cache_out.{layer}")])
}

/// What a graph takes and gives beside what is read of it.
struct Contract {
    heads: Heads,
    layers: usize,
    /// Inputs of a number for each token beside their ids.
    of_tokens: Vec<&'static str>,
    metadata: Vec<(&'static str, String)>,
}

/// Closes the graph over the contract's inputs and outputs.
fn close(nodes: Nodes<'_>, element: Element, contract: Contract, mut output: Vec<ValueInfoProto>) -> Graph {
    let Contract { heads, layers, of_tokens, mut metadata } = contract;
    let long = |name: &str, axis: &str| ValueInfoProto::tensor(name, DataType::Int64, &[axis]);
    let short = |name: &str, axes: &[&str]| ValueInfoProto::tensor(name, DataType::Int32, axes);
    let mut input = vec![long("input_ids", "tokens")];
    input.extend(of_tokens.into_iter().map(|name| long(name, "tokens")));
    if heads.causal {
        input.extend([long(EXPAND, "rows"), long(CONTRACT, "tokens")]);
    }
    input.extend([
        short(ROW_STARTS, &["sequences_and_one"]),
        short(PASTS, &["sequences"]),
        short(BLOCKS, &["sequences", "most_blocks"]),
        short(LONGEST, &["2"]),
        long(READS, "read_tokens"),
    ]);
    let [tokens, kv_heads, head_dim] = [BLOCK_TOKENS, heads.kv_heads, heads.head_dim].map(|size| size.to_string());
    let cache =
        |name: &str| ValueInfoProto::tensor(name, element.data_type(), &["blocks", &tokens, &kv_heads, &head_dim]);
    for [taken, given] in (0..if heads.causal { layers } else { 1 }).flat_map(caches) {
        input.push(cache(&taken));
        if heads.causal {
            output.push(cache(&given));
        }
    }
    metadata.extend([
        ("karat.contract", "rm-packed/1".to_owned()),
        ("karat.block_size", tokens),
        ("karat.causal", heads.causal.to_string()),
    ]);
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
    finish(nodes, input, output, &metadata)
}
