//! An executor whose caches are simulated: it computes exactly what its blocks and rows let it see.
//!
//! It is a model of two layers. A token's key in the first is its id and place; in the second it is a digest of all keys
//! that the token saw in the first; what is read is a digest of all keys that it sees in the second. So a block table that
//! is wrong anywhere, a repeated row that is another token's, or a block that holds what another text left, gives another
//! number or none at all.

use std::sync::{Arc, Mutex};

use karat_rules::domain::RowTensor;

use super::{BLOCK_TOKENS, PackedExecutor, PackedPass, PackedSequence, PackedShape};
use crate::{Cancellation, RuntimeError};

/// The layers that keep keys.
const LAYERS: usize = 2;

/// A key of one token: its place in its text, and what the layer made of it.
type Key = (usize, u64);

/// What a test does to the executor, and what it sees of it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    passes: Vec<PackedPass>,
    /// A token of which no number can be computed.
    overflows_on: Option<u32>,
    /// The most rows that the memory holds.
    memory: Option<usize>,
    /// Cancels the pass of this number in its middle.
    cancel_in: Option<usize>,
    panic_in: Option<usize>,
}

impl Control {
    pub(super) fn overflow_on(&self, token: u32) {
        self.inner.lock().unwrap().overflows_on = Some(token);
    }

    pub(super) fn limit_memory(&self, rows: Option<usize>) {
        self.inner.lock().unwrap().memory = rows;
    }

    /// Cancels the next pass once half of its sequences are written.
    pub(super) fn cancel_next(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.cancel_in = Some(inner.passes.len());
    }

    /// Cancels no pass after all.
    pub(super) fn cancel_none(&self) {
        self.inner.lock().unwrap().cancel_in = None;
    }

    pub(super) fn panic_next(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.panic_in = Some(inner.passes.len());
    }

    /// The passes so far.
    pub(super) fn passes(&self) -> Vec<PackedPass> {
        self.inner.lock().unwrap().passes.clone()
    }
}

/// The simulated session.
pub(super) struct Simulated {
    shape: PackedShape,
    control: Control,
    /// For each layer, the keys of every place of every block.
    caches: [Vec<Option<Key>>; LAYERS],
}

/// What the model scores a text at each token.
pub(super) fn scores(ids: &[u32], segments: &[u32], causal: bool) -> Vec<f32> {
    let mut keys: Vec<u64> = (0..ids.len()).map(|token| embedded(ids[token], segments[token])).collect();
    for _ in 0..LAYERS {
        let all: Vec<Key> = keys.iter().copied().enumerate().collect();
        keys = attended(&all, causal);
    }
    keys.into_iter().map(number).collect()
}

/// What tokens are after a layer, given the keys of all: each takes in those before it and its own, or all of them.
fn attended(keys: &[Key], causal: bool) -> Vec<u64> {
    let add = |sum: &mut u64, key: &Key| {
        *sum = mixed(mixed(*sum, key.0 as u64), key.1);
        Some(*sum)
    };
    let sums: Vec<u64> = keys.iter().scan(17, add).collect();
    if causal {
        return sums;
    }
    let all = sums.last().copied().unwrap_or(0);
    keys.iter().map(|key| mixed(all, key.1)).collect()
}

fn embedded(id: u32, segment: u32) -> u64 {
    mixed(u64::from(id), u64::from(segment))
}

/// A digest of two numbers in their order.
fn mixed(a: u64, b: u64) -> u64 {
    let mixed = (a.rotate_left(23) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// A number that is exact in single precision.
fn number(digest: u64) -> f32 {
    (digest >> 40) as f32
}

impl Simulated {
    pub(super) fn new(shape: PackedShape, control: Control) -> Self {
        let places = shape.blocks * BLOCK_TOKENS;
        Self { shape, control, caches: [vec![None; places], vec![None; places]] }
    }

    /// The keys of everything that a sequence's blocks hold, its own rows included.
    fn seen(&self, layer: usize, sequence: &PackedSequence) -> Vec<Key> {
        let key = |token: usize| {
            let place = place(sequence, token);
            let key = self.caches[layer][place].unwrap_or_else(|| panic!("place {place} was never written"));
            assert_eq!(key.0, token, "place {place} holds another text's token");
            key
        };
        (0..sequence.past + sequence.rows).map(key).collect()
    }
}

/// Where a token of a sequence stands in the caches.
fn place(sequence: &PackedSequence, token: usize) -> usize {
    sequence.blocks[token / BLOCK_TOKENS] as usize * BLOCK_TOKENS + token % BLOCK_TOKENS
}

impl PackedExecutor for Simulated {
    fn forward(&mut self, pass: &PackedPass, cancel: &Cancellation) -> Result<Vec<RowTensor>, RuntimeError> {
        pass.check(&self.shape)?;
        let (overflows_on, memory, cancelled, panics) = {
            let mut inner = self.control.inner.lock().unwrap();
            let number = inner.passes.len();
            inner.passes.push(pass.clone());
            (inner.overflows_on, inner.memory, inner.cancel_in == Some(number), inner.panic_in == Some(number))
        };
        if memory.is_some_and(|rows| pass.expand.len() > rows) {
            let cause = "the simulated memory is full".into();
            return Err(RuntimeError::OutOfMemory { samples: pass.sequences.len(), tokens: pass.tokens.len(), cause });
        }
        let segment = |token: usize| pass.segments.get(token).copied().unwrap_or(0);
        let mut keys: Vec<u64> =
            pass.tokens.iter().enumerate().map(|(token, id)| embedded(*id, segment(token))).collect();
        for layer in 0..LAYERS {
            // All keys of the pass are written before any token looks at them.
            let mut row = 0;
            for (number, sequence) in pass.sequences.iter().enumerate() {
                if number == pass.sequences.len() / 2 {
                    assert!(!panics, "the simulated pass panics");
                    if cancelled {
                        cancel.cancel();
                        return Err(RuntimeError::Cancelled);
                    }
                }
                for token in sequence.past..sequence.past + sequence.rows {
                    self.caches[layer][place(sequence, token)] = Some((token, keys[pass.expand[row]]));
                    row += 1;
                }
            }
            let rows: Vec<u64> = pass
                .sequences
                .iter()
                .flat_map(|sequence| {
                    attended(&self.seen(layer, sequence), self.shape.causal).into_iter().skip(sequence.past)
                })
                .collect();
            keys = pass.contract.iter().map(|row| rows[*row]).collect();
        }
        let overflows = overflows_on.is_some_and(|token| pass.tokens.contains(&token));
        let read = |at: usize| RowTensor::new(vec![1], vec![if overflows { f32::NAN } else { number(keys[at]) }]);
        Ok(pass.reads.iter().map(|asked| read(asked.at).unwrap()).collect())
    }

    fn shape(&self) -> PackedShape {
        self.shape
    }
}
