//! Where a gated head's weights are read: at a mark in the text, which models find among the tokens.

use tokenizers::Tokenizer;

use super::TextError;

/// A mark, and the tokens that it is.
#[derive(Debug)]
pub(super) struct Gate {
    mark: String,
    /// At least one.
    ids: Vec<u32>,
}

impl Gate {
    /// Tokenises a mark.
    ///
    /// # Errors
    /// When it has no tokens.
    pub(super) fn load(mark: &str, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let encoding = tokenizer.encode(mark, false).map_err(|error| TextError::Tokenizer(error.to_string()))?;
        match encoding.get_ids() {
            [] => Err(TextError::Config {
                key: "text.gate_mark",
                reason: format!("{mark:?} has no tokens; write the text at whose first token weights are read"),
            }),
            ids => Ok(Self { mark: mark.to_owned(), ids: ids.to_vec() }),
        }
    }

    /// The first token of the mark's last place.
    ///
    /// An answer that holds the mark moves it, as in the authors' code: what counts is what was trained.
    pub(super) fn find(&self, ids: &[u32]) -> Result<usize, TextError> {
        let last = ids.windows(self.ids.len()).rposition(|window| window == self.ids);
        last.ok_or_else(|| TextError::NoGate { mark: self.mark.clone() })
    }
}
