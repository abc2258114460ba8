//! The few shapes that padded passes are rounded up to, where a new shape is dear.
//!
//! On Hopper and newer GPUs ONNX Runtime leaves fused attention to cuDNN, which plans it anew for every number of samples
//! and every length: 65 to 70 ms each on an H200, many times what the pass takes. Real traffic is all new shapes. Rounded,
//! there are so few that each is planned before the first request.

use std::num::NonZeroUsize;

/// Lengths up to here are multiples of it.
const STEP: usize = 16;

/// A rule that rounds shapes up: samples to a power of two, lengths by a quarter at most, or by 16 tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shapes {
    /// The longest sample that comes: beyond it a graph may have no embedding for a position.
    longest: NonZeroUsize,
}

impl Shapes {
    /// The rule for samples of up to so many tokens.
    #[must_use]
    pub fn new(longest: NonZeroUsize) -> Self {
        Self { longest }
    }

    /// How many samples of how many tokens are computed for so many that are wanted.
    #[must_use]
    pub fn rounded(self, [samples, tokens]: [usize; 2]) -> [usize; 2] {
        // A sample that is longer than the longest is an error of the graph's to tell.
        let most = self.longest.get().max(tokens);
        [samples.next_power_of_two(), tokens.next_multiple_of(step(tokens)).min(most)]
    }

    /// The most samples, of so many, that are no rounding up.
    #[must_use]
    pub fn whole(self, samples: usize) -> usize {
        samples.checked_ilog2().map_or(0, |power| 1 << power)
    }

    /// Every shape that batches of at most so many samples and positions come to; a sample alone may be longer. The
    /// smaller ones first.
    #[must_use]
    pub fn all(self, most_samples: usize, most_positions: usize) -> Vec<[usize; 2]> {
        let mut lengths = vec![self.rounded([1, 1])[1]];
        while let Some(last) = lengths.last().filter(|last| **last < self.longest.get()) {
            lengths.push(self.rounded([1, last + 1])[1]);
        }
        // The shortest sample that comes to a length decides how many of them fit.
        let shortest = |at: usize| at.checked_sub(1).map_or(1, |before| lengths[before] + 1);
        let of_length = |(at, length): (usize, &usize)| {
            let most = (most_positions / shortest(at)).clamp(1, most_samples.max(1));
            let most = most.next_power_of_two().ilog2();
            (0..=most).map(|power| [1 << power, *length]).collect::<Vec<_>>()
        };
        let mut all: Vec<[usize; 2]> = lengths.iter().enumerate().flat_map(of_length).collect();
        all.sort_unstable_by_key(|[samples, tokens]| samples * tokens);
        all
    }
}

/// By how much lengths about that one grow.
fn step(tokens: usize) -> usize {
    (tokens.next_power_of_two() / 8).max(STEP)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn shapes(longest: usize) -> Shapes {
        Shapes::new(NonZeroUsize::new(longest).unwrap())
    }

    #[test]
    fn lengths_grow_by_a_quarter_and_end_with_the_longest_sample() {
        let lengths: Vec<usize> =
            shapes(500).all(1, 1).into_iter().filter(|shape| shape[0] == 1).map(|shape| shape[1]).collect();
        assert_eq!(lengths, [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 500]);
        assert_eq!(shapes(500).rounded([5, 130]), [8, 160]);
        assert_eq!(shapes(500).rounded([1, 499]), [1, 500]);
        assert_eq!(shapes(500).rounded([1, 600]), [1, 600], "what is too long stays as it is");
        assert_eq!([1, 2, 3, 7, 8].map(|samples| shapes(500).whole(samples)), [1, 2, 2, 4, 8]);
    }

    #[test]
    fn planning_all_of_them_takes_seconds() {
        assert!(shapes(512).all(1024, 16_384).len() <= 160, "10 s at 65 ms each");
        assert!(shapes(8192).all(1024, 16_384).len() <= 240);
    }

    proptest! {
        #[test]
        fn whatever_traffic_comes_its_shapes_are_among_them_and_padding_is_bounded(
            longest in 1..9000_usize,
            most_samples in 1..700_usize,
            most_positions in 1..70_000_usize,
            batches in prop::collection::vec((1..700_usize, 1..9000_usize), 1..50),
        ) {
            let shapes = shapes(longest);
            let all: HashSet<[usize; 2]> = shapes.all(most_samples, most_positions).into_iter().collect();
            for (samples, tokens) in batches {
                let tokens = tokens.min(longest);
                let samples = samples.min(most_samples).min((most_positions / tokens).max(1));
                let [rows, length] = shapes.rounded([samples, tokens]);
                prop_assert!(all.contains(&[rows, length]), "{samples} of {tokens} come to {rows} of {length}");
                prop_assert!(rows >= samples && rows < 2 * samples && length >= tokens && length <= longest);
                prop_assert!(length - tokens < STEP.max(tokens / 4), "{tokens} tokens are padded to {length}");
                let whole = shapes.whole(samples);
                prop_assert!(whole <= samples && 2 * whole > samples);
                prop_assert_eq!(shapes.rounded([whole, tokens])[0], whole);
                // Rounding what is rounded changes nothing.
                prop_assert_eq!(shapes.rounded([rows, length]), [rows, length]);
            }
        }
    }
}
