//! Letters out of tokens that come one by one.
//!
//! A token may hold half a letter: what is shown waits until the letters are whole, so that nobody sees a replacement
//! character where none belongs. Bytes that never make a letter come out as replacement characters once the text goes on
//! or ends, as they do when the whole text is decoded at once.

use std::sync::Arc;

use tokenizers::tokenizer::step_decode_stream;

use super::{TextError, TextPipeline};

/// The state of one text.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    pipeline: Arc<TextPipeline>,
    /// The last tokens: those that were shown last, which decide how the next are written, and those that wait.
    ids: Vec<u32>,
    shown: String,
    shown_ids: usize,
}

impl TextPipeline {
    /// Starts a text.
    #[must_use]
    pub fn detokenizer(self: &Arc<Self>) -> Detokenizer {
        Detokenizer { pipeline: Arc::clone(self), ids: Vec::new(), shown: String::new(), shown_ids: 0 }
    }

    /// The tokens that end the model's turn: its end-of-sequence token, where it names one, and `more`.
    ///
    /// # Errors
    /// When the tokenizer doesn't know one of them.
    pub fn end_ids(&self, more: &[String]) -> Result<Vec<u32>, TextError> {
        let names = self.end.iter().filter(|end| !end.is_empty()).chain(more);
        let known = names.map(|name| {
            self.tokenizer.token_to_id(name).ok_or_else(|| TextError::Config {
                key: "critique.end_tokens",
                reason: format!("the tokenizer doesn't know the token {name:?}; write one of its vocabulary"),
            })
        });
        known.collect()
    }
}

impl Detokenizer {
    /// Takes the next token; gives the letters that are whole now, perhaps none. Special tokens stand for no letters.
    ///
    /// # Errors
    /// When the tokenizer can't decode it.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        let step = step_decode_stream(
            &self.pipeline.tokenizer,
            vec![id],
            true,
            &mut self.ids,
            &mut self.shown,
            &mut self.shown_ids,
        );
        step.map(Option::unwrap_or_default).map_err(unreadable)
    }

    /// The text is at its end: what waited for more, as it is.
    ///
    /// # Errors
    /// When the tokenizer can't decode it.
    pub fn finish(self) -> Result<String, TextError> {
        let text = self.pipeline.tokenizer.decode(&self.ids, true).map_err(unreadable)?;
        Ok(text.strip_prefix(&self.shown).unwrap_or_default().to_owned())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the library's boxed errors, for map_err")]
fn unreadable(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A byte-level tokenizer without merges: each byte is a token of its own value, then two special tokens.
    fn bytes() -> (TempDir, Arc<TextPipeline>) {
        // Byte-level tokenizers write bytes that are no visible characters as others: 33 to 126, 161 to 172 and 174 to
        // 255 stand for themselves, the rest follow from 256 on.
        let mut next = 256;
        let mut vocabulary = serde_json::Map::new();
        for byte in 0..=255_u32 {
            let visible = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let letter = if visible {
                byte
            } else {
                next += 1;
                next - 1
            };
            vocabulary.insert(char::from_u32(letter).unwrap().to_string(), json!(byte));
        }
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(256, "<s>"), special(257, "</s>")],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        });
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let config = toml::from_str("render = \"raw\"\neos_token = \"</s>\"\nmax_tokens = 64").unwrap();
        let pipeline = TextPipeline::load(folder.path(), &config).unwrap();
        (folder, Arc::new(pipeline))
    }

    fn pieces(pipeline: &Arc<TextPipeline>, ids: &[u32]) -> Vec<String> {
        let mut detokenizer = pipeline.detokenizer();
        let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id).unwrap()).collect();
        pieces.push(detokenizer.finish().unwrap());
        pieces
    }

    #[test]
    fn a_letter_comes_when_it_is_whole_and_special_tokens_are_none() {
        let (_folder, pipeline) = bytes();
        let ids: Vec<u32> = [256].into_iter().chain("a€b".bytes().map(u32::from)).chain([257]).collect();
        assert_eq!(pieces(&pipeline, &ids), ["", "a", "", "", "€", "b", "", ""]);
        // Half a letter at the end, and a byte that is part of none.
        assert_eq!(pieces(&pipeline, &[97, 0xE2, 0x82]).concat(), "a\u{FFFD}");
        assert_eq!(pieces(&pipeline, &[97, 0xFF, 98]).concat(), "a\u{FFFD}b");
        assert_eq!(pipeline.end_ids(&["<s>".to_owned()]).unwrap(), [257, 256]);
        assert!(pipeline.end_ids(&["<end>".to_owned()]).is_err());
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text(text in "\\PC{0,16}", noise in prop::collection::vec(any::<u8>(), 0..12)) {
            let (_folder, pipeline) = bytes();
            let whole: Vec<u32> = text.bytes().map(u32::from).collect();
            let shown = pieces(&pipeline, &whole);
            prop_assert_eq!(shown.concat(), text.clone());
            let replaced = shown.iter().any(|piece| piece.contains(char::REPLACEMENT_CHARACTER));
            prop_assert_eq!(replaced, text.contains(char::REPLACEMENT_CHARACTER));
            let noisy: Vec<u32> = noise.iter().copied().map(u32::from).chain(whole).collect();
            let expected = pipeline.tokenizer.decode(&noisy, true).unwrap();
            prop_assert_eq!(pieces(&pipeline, &noisy).concat(), expected);
        }
    }
}
