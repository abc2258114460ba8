//! What tokens there are, for those who try a graph.

use std::collections::BTreeSet;

use super::TextPipeline;

/// Tokens of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vocabulary {
    /// The token with the largest id, as it is written.
    pub(crate) largest: (u32, String),
    /// Tokens of plain text, evenly spread over the vocabulary: none that was added to it, nor what pads.
    pub(crate) plain: Vec<u32>,
}

impl TextPipeline {
    /// Which ids there are; of plain tokens about `count`. `None` where the tokenizer has no tokens at all.
    pub(crate) fn vocabulary(&self, count: usize) -> Option<Vocabulary> {
        let all = self.tokenizer.get_vocab(true);
        let (text, largest) = all.iter().max_by_key(|(_, id)| **id)?;
        let added = self.tokenizer.get_added_tokens_decoder();
        let plain: BTreeSet<u32> =
            all.values().copied().filter(|id| !added.contains_key(id) && *id != self.padding).collect();
        let step = (plain.len() / count.max(1)).max(1);
        Some(Vocabulary {
            largest: (*largest, text.clone()),
            plain: plain.into_iter().step_by(step).take(count).collect(),
        })
    }
}
