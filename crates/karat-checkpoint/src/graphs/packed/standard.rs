//! The same attention from standard operators, with the same inputs and outputs.
//!
//! New keys and values are written to their places in the blocks, each sequence's blocks are gathered, and its queries are
//! padded to the longest of the pass: slower than what a GPU does, and the same numbers.

use karat_onnx::tensor_proto::DataType;

use super::{
    super::nodes::{Attribute, Nodes, signed},
    BLOCK_TOKENS, BLOCKS, EXPAND, Heads, LONGEST, Layer, PASTS, ROW_STARTS, Rotation, caches,
};

/// What is added where a token may not look: large enough that its share is 0 in 32 bits.
const UNSEEN: f64 = -1e9;

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
    /// Whether a query may see a key where there is no window, `[B, Q, L]`.
    seen: String,
}

impl Standard {
    pub(super) fn new(nodes: &mut Nodes<'_>, heads: Heads, rotations: &[Rotation]) -> Self {
        let [starts, ends, pasts, blocks, longest] = inputs(nodes);
        let (zero, one) = (nodes.integer("zero", 0), nodes.integer("step", 1));
        let (column, row) = (nodes.shape(&[-1, 1]), nodes.shape(&[1, -1]));
        let last = nodes.integers("last_axis", &[-1]);
        let drop_axis = || [("keepdims", Attribute::Int(0))];

        // Each row: its sequence, its place there, and its position in the whole text.
        let count = if heads.causal { EXPAND } else { "input_ids" };
        let count = nodes.add("Shape", &[count]);
        let count = nodes.add("Squeeze", &[&count]);
        let rows = nodes.add("Range", &[&zero, &count, &one]);
        let [rows_column, ends_row] =
            [(&rows, &column), (&ends, &row)].map(|(value, shape)| nodes.add("Reshape", &[value, shape]));
        let behind = nodes.add("GreaterOrEqual", &[&rows_column, &ends_row]);
        let behind = nodes.add_with("Cast", &[&behind], &[("to", Attribute::Int(DataType::Int64 as i64))]);
        let sequence = nodes.add_with("ReduceSum", &[&behind, &last], &drop_axis());
        let start = nodes.add("Gather", &[&starts, &sequence]);
        let within = nodes.add("Sub", &[&rows, &start]);
        let past = nodes.add("Gather", &[&pasts, &sequence]);
        let positions = nodes.add("Add", &[&within, &past]);

        let slots = slots(nodes, &blocks, &sequence, &positions);
        let rotations = rotate(nodes, rotations, &positions);

        let place = |nodes: &mut Nodes<'_>, at: i64| {
            let at = nodes.integer(&format!("place_{at}"), at);
            nodes.add("Gather", &[&longest, &at])
        };
        let (most_rows, length) = (place(nodes, 0), place(nodes, 1));
        let padded = nodes.add("Range", &[&zero, &most_rows, &one]);
        let padded = nodes.add("Reshape", &[&padded, &row]);
        let starts_column = nodes.add("Reshape", &[&starts, &column]);
        let end = nodes.add("Sub", &[&count, &one]);
        let queries = nodes.add("Add", &[&starts_column, &padded]);
        let queries = nodes.add("Min", &[&queries, &end]);
        let first = nodes.add("Mul", &[&sequence, &most_rows]);
        let rows = nodes.add("Add", &[&first, &within]);

        let [pasts_column, ends_column] = [&pasts, &ends].map(|value| nodes.add("Reshape", &[value, &column]));
        let own = nodes.add("Sub", &[&ends_column, &starts_column]);
        let whole = nodes.add("Add", &[&pasts_column, &own]);
        let keys = nodes.add("Range", &[&zero, &length, &one]);
        let present = nodes.add("Less", &[&keys, &whole]);
        let query_positions = nodes.add("Add", &[&pasts_column, &padded]);
        let query_positions = nodes.add("Unsqueeze", &[&query_positions, &last]);
        let distance = nodes.add("Sub", &[&query_positions, &keys]);
        let middle = nodes.integers("axis_1", &[1]);
        let in_text = nodes.add("Unsqueeze", &[&present, &middle]);
        let seen = if heads.causal {
            let before = nodes.add("GreaterOrEqual", &[&distance, &zero]);
            nodes.add("And", &[&before, &in_text])
        } else {
            in_text
        };
        let behind_axes = nodes.integers("behind_axes", &[2, 3]);
        let present = nodes.add("Unsqueeze", &[&present, &behind_axes]);
        let list = nodes.shape(&[1]);
        let length = nodes.add("Reshape", &[&length, &list]);
        Self { heads, rotations, blocks, slots, length, queries, rows, present, distance, seen }
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
            query = nodes.rotate(&query, rotation);
            key = nodes.rotate(&key, rotation);
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
        let query = nodes.scaled(&query, Some(scale));
        let mut likeness = nodes.add("MatMul", &[&query, &key]);
        if let Some(cap) = cap {
            likeness = nodes.cap(&likeness, cap);
        }
        let bias = self.bias(nodes, layer.window);
        let masked = nodes.add("Add", &[&likeness, &bias]);
        let share = nodes.add_with("Softmax", &[&masked], &[("axis", Attribute::Int(-1))]);
        let drawn = nodes.add("MatMul", &[&share, &value]);
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
        let (nothing, unseen) = (nodes.number("nothing", 0.0), nodes.number("unseen", UNSEEN));
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

/// The inputs of sequences in 64 bits: where their rows begin and end, their pasts, their blocks, and the longest.
fn inputs(nodes: &mut Nodes<'_>) -> [String; 5] {
    let to_long = [("to", Attribute::Int(DataType::Int64 as i64))];
    let [bounds, pasts, blocks, longest] =
        [ROW_STARTS, PASTS, BLOCKS, LONGEST].map(|input| nodes.add_with("Cast", &[input], &to_long));
    let (first, second) = (nodes.integers("from_0", &[0]), nodes.integers("from_1", &[1]));
    let (last, end) = (nodes.integers("before_last", &[-1]), nodes.integers("end", &[i64::MAX]));
    let starts = nodes.add("Slice", &[&bounds, &first, &last]);
    let ends = nodes.add("Slice", &[&bounds, &second, &end]);
    [starts, ends, pasts, blocks, longest]
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
    let positions = nodes.add_with("Cast", &[positions], &[("to", Attribute::Int(DataType::Float as i64))]);
    let positions = nodes.add("Reshape", &[&positions, &column]);
    let mut rotation = |(number, rotation): (usize, &Rotation)| {
        let (frequencies, factors) = rotation;
        let frequencies = nodes.numbers(&format!("inverse_frequencies_{number}"), &[frequencies.len()], frequencies);
        let angles = nodes.add("Mul", &[&positions, &frequencies]);
        let turned = nodes.rotation(&angles);
        if factors.iter().all(|factor| (factor - 1.0).abs() < f32::EPSILON) {
            return turned;
        }
        let factors = [factors.as_slice(), factors].concat();
        let factors = nodes.numbers(&format!("rotation_factors_{number}"), &[factors.len()], &factors);
        turned.map(|value| nodes.add("Mul", &[&value, &factors]))
    };
    rotations.iter().enumerate().map(&mut rotation).collect()
}
