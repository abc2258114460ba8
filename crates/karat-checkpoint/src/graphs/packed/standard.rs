//! The same attention from standard operators, with the same inputs and outputs.
//!
//! New keys and values are written to their places in the blocks, each sequence's blocks are gathered, and its queries are
//! padded to the longest of the pass: slower than what a GPU does, and the same numbers.

use karat_onnx::tensor_proto::DataType;

use super::{
    super::nodes::{Attribute, Nodes, signed},
    BLOCK_TOKENS, BLOCKS, EXPAND, Heads, LONGEST, Layer, PASTS, ROW_STARTS, Rotation, caches,
};

/// What all layers share, as the names of values. There are B sequences; the longest has Q rows, and L tokens with its past.
pub(super) struct Standard {
    heads: Heads,
    /// Cosines and signed sines of each row, `[rows, 1, head_dim]`, for each rotation.
    rotations: Vec<[String; 2]>,
    /// `[B, most_blocks]`.
    blocks: String,
    /// Block and place of each row's key and value, `[rows, 2]`.
    slots: String,
    /// L, as a list of one.
    length: String,
    /// The row of each sequence's queries, `[B, Q]`.
    queries: String,
    /// The place of each row among those, `[rows]`.
    rows: String,
    /// Whether a sequence has a token there, `[B, L, 1, 1]`.
    present: String,
    /// How far before a query a key stands, `[B, Q, L]`; below 0 behind it.
    distance: String,
    /// Whether a query may see a key where there is no window, `[B, Q or 1, L]`.
    seen: String,
}

impl Standard {
    pub(super) fn new(nodes: &mut Nodes<'_>, heads: Heads, rotations: &[Rotation]) -> Self {
        let sequences = Sequences::new(nodes);
        // Where nothing is repeated, rows are tokens.
        let count = nodes.add("Shape", &[if heads.causal { EXPAND } else { "input_ids" }]);
        let count = nodes.add("Squeeze", &[&count]);
        let [sequence, within, positions] = sequences.rows(nodes, &count);
        let first = nodes.add("Mul", &[&sequence, &sequences.most_rows]);
        let rows = nodes.add("Add", &[&first, &within]);
        let [present, distance, seen] = sequences.sights(nodes, heads.causal);
        let list = nodes.shape(&[1]);
        Self {
            heads,
            rotations: rotate(nodes, rotations, &positions),
            slots: slots(nodes, &sequences.blocks, &sequence, &positions),
            queries: sequences.queries(nodes, &count),
            length: nodes.add("Reshape", &[&sequences.length, &list]),
            blocks: sequences.blocks,
            rows,
            present,
            distance,
            seen,
        }
    }

    pub(super) fn attend(&self, nodes: &mut Nodes<'_>, layer: &Layer, rows: &str) -> String {
        let Heads { heads, kv_heads, head_dim, scale, cap, .. } = self.heads;
        let [dim, group] = [head_dim, heads / kv_heads].map(signed);
        let [queries, keys, values] = nodes.parts(rows, self.heads.widths());
        let by_head = |nodes: &mut Nodes<'_>, value: &str, heads: usize| {
            let shape = nodes.shape(&[0, signed(heads), dim]);
            nodes.add("Reshape", &[value, &shape])
        };
        let mut query = by_head(nodes, &queries, heads);
        let mut key = by_head(nodes, &keys, kv_heads);
        let value = by_head(nodes, &values, kv_heads);
        if let Some(rotation) = layer.rotation.and_then(|rotation| self.rotations.get(rotation)) {
            [query, key] = [query, key].map(|value| {
                let turned = nodes.rotate(&value, rotation);
                nodes.rounded(&turned)
            });
        }
        let [key_names, value_names] = caches(layer.cache);
        let key = self.keep(nodes, &key_names, &key);
        let value = self.keep(nodes, &value_names, &value);
        let permuted = |nodes: &mut Nodes<'_>, value: &str, order: &[i64]| {
            nodes.add_with("Transpose", &[value], &[("perm", Attribute::Ints(order))])
        };
        let group_axis = nodes.integers("axis_2", &[2]);
        let key = permuted(nodes, &key, &[0, 2, 3, 1]);
        let key = nodes.add("Unsqueeze", &[&key, &group_axis]);
        let value = permuted(nodes, &value, &[0, 2, 1, 3]);
        let value = nodes.add("Unsqueeze", &[&value, &group_axis]);

        let query = nodes.add("Gather", &[&query, &self.queries]);
        let grouped = nodes.shape(&[0, 0, signed(kv_heads), group, dim]);
        let query = nodes.add("Reshape", &[&query, &grouped]);
        let query = permuted(nodes, &query, &[0, 2, 3, 1, 4]);
        let query = nodes.within(|nodes| nodes.scaled(&query, Some(scale)));
        let mut likeness = nodes.add("MatMul", &[&query, &key]);
        if let Some(cap) = cap {
            likeness = nodes.cap(&likeness, cap);
        }
        let bias = self.bias(nodes, layer.window);
        let masked = nodes.add("Add", &[&likeness, &bias]);
        let share = nodes.add_with("Softmax", &[&masked], &[("axis", Attribute::Int(-1))]);
        // Shares meet values in the format of those.
        let share = nodes.rounded(&share);
        let drawn = nodes.add("MatMul", &[&share, &value]);
        let drawn = nodes.rounded(&drawn);
        let drawn = permuted(nodes, &drawn, &[0, 3, 1, 2, 4]);
        let flat = nodes.shape(&[-1, signed(heads * head_dim)]);
        let drawn = nodes.add("Reshape", &[&drawn, &flat]);
        nodes.add("Gather", &[&drawn, &self.rows])
    }

    /// Writes keys or values into their blocks; gives those of each sequence, `[B, L, KV, head_dim]`.
    fn keep(&self, nodes: &mut Nodes<'_>, [taken, given]: &[String; 2], new: &str) -> String {
        let Heads { kv_heads, head_dim, causal, .. } = self.heads;
        let written = if causal {
            nodes.add_into(given, "ScatterND", &[taken, &self.slots, new]);
            given.clone()
        } else {
            nodes.add("ScatterND", &[taken, &self.slots, new])
        };
        let blocks = nodes.add("Gather", &[&written, &self.blocks]);
        let strung = nodes.shape(&[0, -1, signed(kv_heads), signed(head_dim)]);
        let tokens = nodes.add("Reshape", &[&blocks, &strung]);
        let (from, axis) = (nodes.integers("from_0", &[0]), nodes.integers("axis_1", &[1]));
        let tokens = nodes.add("Slice", &[&tokens, &from, &self.length, &axis]);
        // What was left in a block by others may be no number, of which a share of 0 is none either.
        let nothing = nodes.number("nothing", 0.0);
        nodes.add("Where", &[&self.present, &tokens, &nothing])
    }

    /// 0 where a query may see a key, and else a large negative number: `[B, 1, 1, Q, L]`.
    fn bias(&self, nodes: &mut Nodes<'_>, window: Option<usize>) -> String {
        let (nothing, unseen) = (nodes.number("nothing", 0.0), nodes.unseen());
        let seen = match window {
            None => self.seen.clone(),
            Some(window) => {
                let size = nodes.integer(&format!("window_{window}"), signed(window));
                let near = nodes.add("Less", &[&self.distance, &size]);
                nodes.add("And", &[&self.seen, &near])
            }
        };
        let bias = nodes.add("Where", &[&seen, &nothing, &unseen]);
        let of_heads = nodes.integers("middle_axes", &[1, 2]);
        nodes.add("Unsqueeze", &[&bias, &of_heads])
    }
}

/// What the inputs say of sequences, in 64 bits; all but the last three are columns, `[B, 1]`.
struct Sequences {
    /// Where their rows begin and end.
    starts: String,
    ends: String,
    /// How many tokens go before those.
    pasts: String,
    /// `[B, most_blocks]`.
    blocks: String,
    /// Q and L.
    most_rows: String,
    length: String,
}

impl Sequences {
    fn new(nodes: &mut Nodes<'_>) -> Self {
        let to_long = [("to", Attribute::Int(DataType::Int64 as i64))];
        let [bounds, pasts, blocks, longest] =
            [ROW_STARTS, PASTS, BLOCKS, LONGEST].map(|input| nodes.add_with("Cast", &[input], &to_long));
        let (first, second) = (nodes.integers("from_0", &[0]), nodes.integers("from_1", &[1]));
        let (last, end) = (nodes.integers("before_last", &[-1]), nodes.integers("end", &[i64::MAX]));
        let starts = nodes.add("Slice", &[&bounds, &first, &last]);
        let ends = nodes.add("Slice", &[&bounds, &second, &end]);
        let column = nodes.shape(&[-1, 1]);
        let [starts, ends, pasts] = [starts, ends, pasts].map(|value| nodes.add("Reshape", &[&value, &column]));
        let [most_rows, length] = [0, 1].map(|place| {
            let place = nodes.integer(&format!("place_{place}"), place);
            nodes.add("Gather", &[&longest, &place])
        });
        Self { starts, ends, pasts, blocks, most_rows, length }
    }

    /// Of each of `count` rows its sequence, its place there, and its position in the whole text.
    fn rows(&self, nodes: &mut Nodes<'_>, count: &str) -> [String; 3] {
        let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
        let (row, first) = (nodes.shape(&[-1]), nodes.integers("axis_0", &[0]));
        let rows = nodes.add("Range", &[&zero, count, &one]);
        let behind = nodes.add("GreaterOrEqual", &[&rows, &self.ends]);
        let behind = nodes.add_with("Cast", &[&behind], &[("to", Attribute::Int(DataType::Int64 as i64))]);
        let sequence = nodes.add_with("ReduceSum", &[&behind, &first], &[("keepdims", Attribute::Int(0))]);
        let [start, past] = [&self.starts, &self.pasts].map(|column| {
            let list = nodes.add("Reshape", &[column, &row]);
            nodes.add("Gather", &[&list, &sequence])
        });
        let within = nodes.add("Sub", &[&rows, &start]);
        let positions = nodes.add("Add", &[&within, &past]);
        [sequence, within, positions]
    }

    /// The numbers from 0 below Q.
    fn places(&self, nodes: &mut Nodes<'_>) -> String {
        let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
        nodes.add("Range", &[&zero, &self.most_rows, &one])
    }

    /// The row of each sequence's queries, `[B, Q]`; behind its last one those of others.
    fn queries(&self, nodes: &mut Nodes<'_>, count: &str) -> String {
        let one = nodes.integer("step", 1);
        let places = self.places(nodes);
        let end = nodes.add("Sub", &[count, &one]);
        let rows = nodes.add("Add", &[&self.starts, &places]);
        nodes.add("Min", &[&rows, &end])
    }

    /// Whether a sequence has a token there, `[B, L, 1, 1]`; how far before a query a key stands, `[B, Q, L]`; and whether a
    /// query may see it, `[B, Q or 1, L]`.
    fn sights(&self, nodes: &mut Nodes<'_>, causal: bool) -> [String; 3] {
        let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
        let (last, middle) = (nodes.integers("last_axis", &[-1]), nodes.integers("axis_1", &[1]));
        let own = nodes.add("Sub", &[&self.ends, &self.starts]);
        let whole = nodes.add("Add", &[&self.pasts, &own]);
        let keys = nodes.add("Range", &[&zero, &self.length, &one]);
        let present = nodes.add("Less", &[&keys, &whole]);
        let places = self.places(nodes);
        let queries = nodes.add("Add", &[&self.pasts, &places]);
        let queries = nodes.add("Unsqueeze", &[&queries, &last]);
        let distance = nodes.add("Sub", &[&queries, &keys]);
        let mut seen = nodes.add("Unsqueeze", &[&present, &middle]);
        if causal {
            let before = nodes.add("GreaterOrEqual", &[&distance, &zero]);
            seen = nodes.add("And", &[&before, &seen]);
        }
        let behind = nodes.integers("behind_axes", &[2, 3]);
        let present = nodes.add("Unsqueeze", &[&present, &behind]);
        [present, distance, seen]
    }
}

/// Block and place of each row's key and value, `[rows, 2]`.
fn slots(nodes: &mut Nodes<'_>, blocks: &str, sequence: &str, positions: &str) -> String {
    let size = nodes.integer("block_tokens", signed(BLOCK_TOKENS));
    let number = nodes.add("Div", &[positions, &size]);
    let place = nodes.add("Mod", &[positions, &size]);
    let column = nodes.shape(&[-1, 1]);
    let pair = |nodes: &mut Nodes<'_>, first: &str, second: &str| {
        let [first, second] = [first, second].map(|value| nodes.add("Reshape", &[value, &column]));
        nodes.add_with("Concat", &[&first, &second], &[("axis", Attribute::Int(1))])
    };
    let at = pair(nodes, sequence, &number);
    let block = nodes.add("GatherND", &[blocks, &at]);
    pair(nodes, &block, &place)
}

/// Cosines and signed sines of each row, for each rotation.
fn rotate(nodes: &mut Nodes<'_>, rotations: &[Rotation], positions: &str) -> Vec<[String; 2]> {
    let column = nodes.shape(&[-1, 1, 1]);
    let positions = nodes.as_numbers(positions);
    let positions = nodes.add("Reshape", &[&positions, &column]);
    let mut rotation = |(number, rotation): (usize, &Rotation)| {
        let (frequencies, factors) = rotation;
        let frequencies = nodes.numbers(&format!("inverse_frequencies_{number}"), &[frequencies.len()], frequencies);
        let angles = nodes.add("Mul", &[&positions, &frequencies]);
        let turned = nodes.rotation(&angles);
        if factors.iter().all(|factor| (factor - 1.0).abs() < f32::EPSILON) {
            return turned.map(|value| nodes.rounded(&value));
        }
        let factors = [factors.as_slice(), factors].concat();
        let factors = nodes.numbers(&format!("rotation_factors_{number}"), &[factors.len()], &factors);
        turned.map(|value| {
            let scaled = nodes.add("Mul", &[&value, &factors]);
            nodes.rounded(&scaled)
        })
    };
    rotations.iter().enumerate().map(&mut rotation).collect()
}
