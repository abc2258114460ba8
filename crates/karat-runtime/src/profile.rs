//! The shapes of batches that an engine is built for.
//!
//! There is one range for all of them: ONNX Runtime's TensorRT provider builds engines with several, and then computes
//! nothing but the first.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The range of shapes that a TensorRT engine is built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShapeProfile {
    /// The smallest batch that will come.
    pub(crate) min: Shape,
    /// The batch to be fastest at.
    pub(crate) best: Shape,
    /// The largest batch that will come.
    pub max: Shape,
}

/// The shape of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The number of samples.
    pub batch: NonZeroUsize,
    /// The number of tokens that each is padded to.
    pub tokens: NonZeroUsize,
}

/// What a graph's batches look like, as far as the manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The longest sample, in tokens.
    pub longest: NonZeroUsize,
    /// The most positions of a batch of several samples.
    pub positions: NonZeroUsize,
    /// The most samples of a batch.
    pub samples: Option<NonZeroUsize>,
}

/// The length that an engine is fastest at: about that of a usual sample.
const USUAL_TOKENS: usize = 128;

impl ShapeProfile {
    /// From one token to the largest rectangle that holds every batch: an engine takes any number of samples with any
    /// length within its profile, and reserves memory for both at once.
    pub(super) fn of(limits: &BatchLimits) -> Self {
        let at_length = |tokens: NonZeroUsize| {
            let fitting = NonZeroUsize::new(limits.positions.get() / tokens).unwrap_or(NonZeroUsize::MIN);
            limits.samples.map_or(fitting, |samples| samples.min(fitting))
        };
        let batch = at_length(limits.longest);
        let usual = NonZeroUsize::new(USUAL_TOKENS).map_or(limits.longest, |usual| usual.min(limits.longest));
        Self {
            min: Shape { batch: NonZeroUsize::MIN, tokens: NonZeroUsize::MIN },
            best: Shape { batch, tokens: usual },
            max: Shape { batch, tokens: limits.longest },
        }
    }
}
