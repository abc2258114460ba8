//! Bounds a text by its bytes before it is tokenised: a tokenizer takes hundreds of bytes of memory for each byte of a
//! text, and a text of megabytes that can't fit anyway would take the server from everybody.

use tokenizers::Tokenizer;

use super::Truncation;

/// What a text may have beyond what its tokens can spell: white space and characters that a tokenizer drops.
const DROPPED: usize = 64 * 1024;
/// A token of a large vocabulary spells at least so many bytes at most: words that a tokenizer doesn't know may be long.
const SHORTEST: usize = 32;
/// A text that is to be cut may be longer than what is left of it.
const TO_BE_CUT: usize = 1024 * 1024;

/// A text is longer than any that the model takes, whatever its tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sample has {bytes} bytes, and the model takes at most {max_tokens} tokens: no more than {most} bytes are \
     tokenised; shorten it"
)]
pub struct TooManyBytes {
    /// The length of the text once rendered.
    pub bytes: usize,
    /// The model's limit.
    pub max_tokens: usize,
    /// The most bytes that are tokenised.
    pub most: usize,
}

/// How many bytes of a text are tokenised.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongestText {
    max_tokens: usize,
    most: usize,
}

impl LongestText {
    /// For texts of at most `max_tokens` tokens of this tokenizer.
    pub(super) fn new(tokenizer: &Tokenizer, max_tokens: usize) -> Self {
        let longest_token = tokenizer.get_vocab(true).keys().map(String::len).max().unwrap_or(0).max(SHORTEST);
        Self { max_tokens, most: max_tokens.saturating_mul(longest_token).saturating_add(DROPPED) }
    }

    /// Refuses a text that can't be short enough.
    pub(super) fn check(&self, bytes: usize, policy: Truncation) -> Result<(), TooManyBytes> {
        let most = match policy {
            Truncation::Refuse => self.most,
            Truncation::PromptStart | Truncation::ResponseEnd => self.most.max(TO_BE_CUT),
        };
        if bytes <= most { Ok(()) } else { Err(TooManyBytes { bytes, max_tokens: self.max_tokens, most }) }
    }
}
