//! What passes of packed rows are made of, and what lies in their blocks.

use prometheus::{Error, Histogram, IntCounter, IntGauge, Registry};

use crate::metrics;

const TOKENS: [f64; 8] = [64.0, 256.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 32_768.0];
const SEQUENCES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

metrics! {
    /// The passes and blocks of one model of packed rows, over all of its sessions.
    pub struct PackedMetrics of pub(crate) PackedFamilies by "model" {
        used: IntGauge = "karat_packed_blocks_used", "Blocks of keys and values that passes and texts hold";
        kept: IntGauge = "karat_packed_blocks_kept", "Blocks that nobody holds, kept for texts that begin alike";
        free: IntGauge = "karat_packed_blocks_free", "Blocks that hold nothing";
        evicted: IntCounter = "karat_packed_blocks_evicted_total", "Kept blocks that gave way to what was computed";
        tokens: Histogram in TOKENS = "karat_packed_pass_tokens", "Tokens of a pass of packed rows, each counted once";
        sequences: Histogram in SEQUENCES = "karat_packed_pass_sequences", "Sequences of a pass of packed rows";
    }
}

/// How a session's blocks are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlockCounts {
    /// Those that somebody holds.
    pub(crate) used: usize,
    /// Those that are kept and held by nobody.
    pub(crate) kept: usize,
    /// The others.
    pub(crate) free: usize,
}

impl PackedMetrics {
    /// Figures that nobody reads.
    ///
    /// # Errors
    /// None: nothing else is in their registry.
    pub fn unread() -> Result<Self, Error> {
        Ok(PackedFamilies::register(&Registry::new())?.of("trial"))
    }

    /// Of a session's blocks, so many are used `now` that were `before`.
    pub(crate) fn blocks(&self, before: BlockCounts, now: BlockCounts) {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (gauge, before, now) in [
            (&self.used, before.used, now.used),
            (&self.kept, before.kept, now.kept),
            (&self.free, before.free, now.free),
        ] {
            gauge.add(signed(now) - signed(before));
        }
    }

    /// A kept block gave way.
    pub(crate) fn evicted(&self) {
        self.evicted.inc();
    }

    /// A pass was computed.
    pub(crate) fn pass(&self, tokens: usize, sequences: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a pass fits into memory")]
        let [tokens, sequences] = [tokens as f64, sequences as f64];
        self.tokens.observe(tokens);
        self.sequences.observe(sequences);
    }
}
