//! The samples of a run, as `loadtest/workload.py` wrote them.

use std::{fs, path::Path, sync::Arc};

use karat_rules::domain::{Cut, TokenizedInput};
use serde::Deserialize;

use crate::Failure;

/// One prompt with one response, and the tokens that the model's tokenizer makes of them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Sample {
    pub(crate) prompt: String,
    pub(crate) response: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) type_ids: Vec<u32>,
    /// The Best-of-N group it belongs to: neighbours with the same number share their prompt.
    pub(crate) group: usize,
}

impl Sample {
    pub(crate) fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    /// What a graph is fed.
    pub(crate) fn input(self) -> Result<Arc<TokenizedInput>, Failure> {
        let response = 0..self.ids.len();
        let input = TokenizedInput::new(self.ids, self.type_ids, response, Cut::default());
        Ok(Arc::new(input.ok_or("a sample of the workload has no tokens, or not as many type ids as ids")?))
    }
}

/// Reads a file of one JSON object a line.
pub(crate) fn read(path: &Path) -> Result<Vec<Sample>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let samples: Vec<Sample> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    if samples.is_empty() {
        return Err(format!("{}: no samples", path.display()).into());
    }
    Ok(samples)
}
