//! The keys and values of everything that is being written, in one tensor.

use std::{ops::Range, sync::Arc};

use karat_runtime::{DecoderShape, KeyValues, Past};

use super::slots::{Lease, Slots};

/// The least growth, in tokens: rows are computed over all places, so that there should not be many more than needed.
const GROWTH: usize = 64;

/// Places for keys and values, and what stands there.
pub(super) struct Memory {
    shape: DecoderShape,
    slots: Slots,
    values: Option<Arc<KeyValues>>,
}

impl Memory {
    pub(super) fn new(shape: DecoderShape) -> Self {
        Self { shape, slots: Slots::default(), values: None }
    }

    /// Everything, as a row takes it.
    pub(super) fn past(&self) -> Vec<Past> {
        self.values.iter().map(|values| Past::all(Arc::clone(values))).collect()
    }

    /// Keeps tokens of `computed` behind those that the lease has.
    pub(super) fn keep(&mut self, lease: &mut Lease, computed: &KeyValues, tokens: Range<usize>) {
        let places = self.slots.extend(lease, tokens.len());
        self.fit();
        let Some(values) = &mut self.values else { return };
        // The executor has let go of the last row, so that nothing is copied but what is new.
        let values = Arc::make_mut(values);
        for (place, token) in places.into_iter().zip(tokens) {
            values.copy_token(&self.shape, place, computed, token);
        }
    }

    /// A copy of what stands at some tokens of a lease; `None` where nothing does.
    pub(super) fn copy(&self, lease: &Lease, tokens: Range<usize>) -> Option<KeyValues> {
        let values = self.values.as_ref().filter(|_| tokens.end <= lease.tokens())?;
        let mut copy = KeyValues::zeros(&self.shape, tokens.len());
        for (place, token) in tokens.enumerate() {
            copy.copy_token(&self.shape, place, values, lease.place(token));
        }
        Some(copy)
    }

    /// Takes a lease's places back.
    pub(super) fn end(&mut self, lease: Lease) {
        self.slots.end(lease);
    }

    /// Makes the tensor as long as the places, or a little longer; gives memory back when most of it is free.
    pub(super) fn fit(&mut self) {
        let wanted = self.slots.capacity();
        let found = self.values.as_ref().map_or(0, |values| values.tokens());
        if wanted == 0 {
            self.values = None;
        } else if wanted > found || wanted * 2 < found {
            let tokens = wanted + (wanted / 4).max(GROWTH);
            let resized = match &self.values {
                Some(values) => values.resized(&self.shape, tokens),
                None => KeyValues::zeros(&self.shape, tokens),
            };
            self.values = Some(Arc::new(resized));
        }
    }
}
