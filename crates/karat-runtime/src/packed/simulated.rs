//! An executor whose caches are simulated: it computes exactly what its blocks and rows let it see.
//!
//! It is a model of two layers. A token's key in the first is its id and place; in the second it is a digest of all keys
//! that the token saw in the first; what is read is a digest of all keys that it sees in the second. So a block table that
//! is wrong anywhere, a repeated row that is another token's, or a block that holds what another text left, gives another
//! number or none at all.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use karat_rules::domain::RowTensor;

use super::{BLOCK_TOKENS, PackedExecutor, PackedPass, PackedSequence, PackedShape, PackedStaging, StagedPass};
use crate::{Cancellation, RuntimeError};

/// The layers that keep keys.
const LAYERS: usize = 2;

/// A key of one token: its place in its text, and what the layer made of it.
type Key = (usize, u64);

/// What a test does to the executor, and what it sees of it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Condvar>,
}

/// What happened to a pass of so many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Its inputs were written before its turn.
    Staged(usize),
    Began(usize),
    Ended(usize),
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
    events: Vec<Event>,
    /// Whether passes wait after they have begun.
    held: bool,
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

    /// Passes that begin from now on wait until they are [released](Self::release).
    pub(super) fn hold(&self) {
        self.inner.lock().unwrap().held = true;
    }

    pub(super) fn release(&self) {
        self.inner.lock().unwrap().held = false;
        self.changed.notify_all();
    }

    /// Waits until that has happened; whether it has.
    pub(super) fn wait_for(&self, event: Event) -> bool {
        const LONG: Duration = Duration::from_secs(60);
        let missing = |inner: &mut Inner| !inner.events.contains(&event);
        !self.changed.wait_timeout_while(self.inner.lock().unwrap(), LONG, missing).unwrap().1.timed_out()
    }

    /// What happened so far.
    pub(super) fn events(&self) -> Vec<Event> {
        self.inner.lock().unwrap().events.clone()
    }

    fn happened(&self, event: Event) {
        self.inner.lock().unwrap().events.push(event);
        self.changed.notify_all();
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
            inner.events.push(Event::Began(pass.tokens.len()));
            self.control.changed.notify_all();
            let mut inner = self.control.changed.wait_while(inner, |inner| inner.held).unwrap();
            inner.events.push(Event::Ended(pass.tokens.len()));
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

    fn staging(&self) -> Option<Box<dyn PackedStaging>> {
        Some(Box::new(self.control.clone()))
    }

    fn forward_staged(
        &mut self,
        pass: &PackedPass,
        staged: StagedPass,
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        assert_eq!(staged.0.downcast_ref::<PackedPass>(), Some(pass), "what was written is another pass");
        self.forward(pass, cancel)
    }
}

impl PackedStaging for Control {
    fn stage(&self, pass: &PackedPass) -> Result<StagedPass, RuntimeError> {
        self.happened(Event::Staged(pass.tokens.len()));
        Ok(StagedPass(Box::new(pass.clone())))
    }
}
