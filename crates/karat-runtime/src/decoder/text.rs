//! What a decoder's exporter says of texts: what they hold, and where their score stands.

/// What a decoder's texts must hold for its numbers to mean something, where its exporter says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextNeeds {
    /// Whether weights are read at a mark in the text.
    pub gate_mark: bool,
    /// The token that every text ends with.
    pub last_token: Option<String>,
}

/// How a sequence classifier finds the token at which its score stands, by the token that it takes for padding.
///
/// Both rules look at ids, so that a text that holds the padding token itself is read as the model's own code reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// At the last token that is another one, as Transformers reads today. Of a text that is all padding it is the first
    /// token. Where padding and end of sequence are the same token, it is the token before the end.
    LastOther(u32),
    /// At the token before the first one that is it, as older code reads: at the last token where there is none, or where
    /// it stands first.
    BeforeFirst(u32),
}

impl Padding {
    /// Where the score of a text stands.
    #[must_use]
    pub fn score_position(self, ids: &[u32]) -> usize {
        let last = ids.len().saturating_sub(1);
        match self {
            Self::LastOther(pad_id) => ids.iter().rposition(|id| *id != pad_id).unwrap_or(0),
            Self::BeforeFirst(pad_id) => {
                ids.iter().position(|id| *id == pad_id).map_or(last, |first| first.checked_sub(1).unwrap_or(last))
            }
        }
    }
}
