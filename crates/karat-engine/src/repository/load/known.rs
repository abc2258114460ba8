//! What an earlier start found out with a graph's first passes, so that this one needs fewer of them.
//!
//! Of the same graph, weights, tokenizer and library the longest sample goes through again. And what sessions gave with whole
//! weights needn't be computed anew to see that they give it without: who gives the same numbers, bit for bit, while those
//! weights are spoilt doesn't read them, whenever and wherever the numbers were found.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::schedule::{recall, remember};

/// Changes whenever first passes find out something else than before.
const EDITION: u32 = 1;

/// What the sessions of a graph gave for the brief samples while all weights were whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Numbers {
    /// A digest of what a session gave; most sessions give the same.
    digests: BTreeSet<String>,
}

impl Numbers {
    /// What sessions gave, each its own, bit for bit.
    pub(super) fn of(sessions: &[Vec<u32>]) -> Self {
        Self { digests: sessions.iter().map(|bits| digest(bits)).collect() }
    }

    /// Whether nothing was found out.
    pub(super) fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether a session gave these.
    pub(super) fn hold(&self, bits: &[u32]) -> bool {
        self.digests.contains(&digest(bits))
    }
}

fn digest(bits: &[u32]) -> String {
    let bytes: Vec<u8> = bits.iter().flat_map(|number| number.to_le_bytes()).collect();
    format!("{:032x}", xxh3_128(&bytes))
}

/// Where what first passes found out is kept between starts.
pub(super) struct FirstPasses {
    /// What it depends on.
    pub(super) fingerprint: String,
    pub(super) file: PathBuf,
    /// Whether anything is kept.
    pub(super) keeps: bool,
}

impl FirstPasses {
    /// What an earlier start found; that it found something says that the longest sample went through.
    pub(super) fn recall(&self) -> Option<Numbers> {
        if !self.keeps {
            return None;
        }
        recall(&self.file, &self.fingerprint(), |_: &Numbers| Ok(()))
    }

    /// Keeps what was found, once all samples went through.
    pub(super) fn keep(&self, numbers: &Numbers) {
        if self.keeps
            && let Err(error) = remember(&self.file, &self.fingerprint(), numbers)
        {
            tracing::info!(file = %self.file.display(), %error, "first passes not kept: run again next time");
        }
    }

    fn fingerprint(&self) -> String {
        format!("{} {EDITION}", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_session_gave_is_known_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let passes = |fingerprint: &str, keeps| FirstPasses {
            fingerprint: fingerprint.to_owned(),
            file: folder.path().join("passes.calibration.json"),
            keeps,
        };
        passes("graph", false).keep(&Numbers::default());
        assert_eq!(passes("graph", true).recall(), None);
        passes("graph", true).keep(&Numbers::of(&[vec![1, 2], vec![1, 2], vec![3]]));
        let known = passes("graph", true).recall().unwrap();
        assert!(known.hold(&[1, 2]) && known.hold(&[3]));
        assert!(!known.hold(&[1]) && !known.hold(&[2, 1]) && !known.hold(&[]));
        assert_eq!((passes("another", true).recall(), passes("graph", false).recall()), (None, None));
    }
}
