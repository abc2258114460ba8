//! Words that have to be one token each.

use tokenizers::Tokenizer;

use super::TextError;

/// What no tokenizer has a token of its own for.
const UNKNOWN: &str = "\u{e000}";

/// Whether a token is the tokenizer's for what it doesn't know.
pub(super) fn is_unknown(tokenizer: &Tokenizer, id: u32) -> Result<bool, TextError> {
    let unknown = tokenizer.encode(UNKNOWN, false).map_err(|error| TextError::Tokenizer(error.to_string()))?;
    Ok(unknown.get_ids() == [id])
}

/// The one token that a text is by itself; otherwise how many it is, 0 where it is the tokenizer's token for what it
/// doesn't know.
pub(super) fn one_token(tokenizer: &Tokenizer, text: &str) -> Result<Result<u32, usize>, TextError> {
    let encode = |text: &str| tokenizer.encode(text, false).map_err(|error| TextError::Tokenizer(error.to_string()));
    let encoding = encode(text)?;
    Ok(match encoding.get_ids() {
        only if only.len() == 1 && encode(UNKNOWN)?.get_ids() == only => Err(0),
        [only] => Ok(*only),
        ids => Err(ids.len()),
    })
}
