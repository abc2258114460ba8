//! What one forward pass computes.

use std::sync::Arc;

use karat_rules::domain::TokenizedInput;

/// Samples that share one forward pass.
///
/// Invariant: at least one sample.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    inputs: Vec<Arc<TokenizedInput>>,
}

impl TokenBatch {
    /// Gathers samples; `None` when there are none.
    #[must_use]
    pub fn new(inputs: Vec<Arc<TokenizedInput>>) -> Option<Self> {
        (!inputs.is_empty()).then_some(Self { inputs })
    }

    /// A batch of one, which needs no padding.
    #[must_use]
    pub fn single(input: Arc<TokenizedInput>) -> Self {
        Self { inputs: vec![input] }
    }

    /// The samples, in the order of the results.
    #[must_use]
    pub(crate) fn inputs(&self) -> &[Arc<TokenizedInput>] {
        &self.inputs
    }

    /// The number of samples, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// The number of tokens of the longest sample: what every other is padded to.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.inputs.iter().map(|input| input.len()).max().unwrap_or(0)
    }

    /// The number of tokens without padding.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.inputs.iter().map(|input| input.len()).sum()
    }

    /// The number of positions that the graph computes, padding included.
    #[must_use]
    pub fn padded_tokens(&self) -> usize {
        self.len() * self.longest()
    }
}
