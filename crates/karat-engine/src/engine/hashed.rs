//! An input with its hash, which is found out once, where the input is made.
//!
//! What a known input's output is looked up by would otherwise be hashed for every request: all its tokens, which lie far
//! away in memory when they were last read some time ago.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use ahash::RandomState;
use karat_rules::domain::TokenizedInput;

/// An input, equal to others by what it holds, of those that were hashed by the same [`RandomState`]: one that no client knows,
/// so that none can tell which inputs have the same hash.
#[derive(Debug, Clone)]
pub(super) struct Hashed {
    input: Arc<TokenizedInput>,
    hash: u64,
}

impl Hashed {
    pub(super) fn new(input: Arc<TokenizedInput>, by: &RandomState) -> Self {
        Self { hash: by.hash_one(&*input), input }
    }

    pub(super) fn input(&self) -> &Arc<TokenizedInput> {
        &self.input
    }

    /// The same, to know an output by: an image without its pixels.
    pub(super) fn remembered(&self) -> Self {
        let input = match self.input.pixels() {
            Some(_) => Arc::new(self.input.remembered()),
            None => Arc::clone(&self.input),
        };
        // Equal inputs have equal hashes.
        Self { input, hash: self.hash }
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        // Where both are the same allocation, nothing of it is read.
        self.hash == other.hash && self.input == other.input
    }
}

impl Eq for Hashed {}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

#[cfg(test)]
mod tests {
    use karat_rules::domain::Cut;

    use super::*;

    fn hashed(ids: Vec<u32>, by: &RandomState) -> Hashed {
        let types = vec![0; ids.len()];
        Hashed::new(Arc::new(TokenizedInput::new(ids, types, 0..1, Cut::default()).unwrap()), by)
    }

    #[test]
    fn inputs_are_told_apart_by_what_they_hold() {
        let by = RandomState::new();
        let (one, same, other) = (hashed(vec![1, 2], &by), hashed(vec![1, 2], &by), hashed(vec![1, 3], &by));
        assert_eq!((&one, by.hash_one(&one)), (&same, by.hash_one(&same)));
        assert_ne!(one, other);
        let collides = Hashed { hash: one.hash, ..other };
        assert_ne!(one, collides, "an equal hash isn't enough");
        assert_eq!(one.remembered(), one);
    }
}
