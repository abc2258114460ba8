//! Letters out of tokens that come one by one.
//!
//! A token may hold half a letter: what is shown waits until the letters are whole, so that nobody sees a replacement
//! character where none belongs. Bytes that never make a letter come out as replacement characters once the text goes on
//! or ends, as they do when the whole text is decoded at once.

use std::sync::Arc;

use tokenizers::Decoder;

use super::{TextError, TextPipeline};

/// How many tokens before those that wait are decoded with them, as they decide how those are written: whether one stands
/// at the text's start, and whether it continues a word. Four hold a whole letter in UTF-8.
const CONTEXT: usize = 4;

/// The state of one text.
#[derive(Debug, Clone)]
pub(crate) struct Detokenizer {
    pipeline: Arc<TextPipeline>,
    /// Whether tokens such as `<0x0A>` are bytes. A run of them is one text or, where it isn't UTF-8, none: so it waits
    /// until it ends.
    byte_fallback: bool,
    /// The last tokens that were shown, then those that wait.
    tokens: Vec<String>,
    shown: usize,
}

impl TextPipeline {
    /// Starts a text.
    #[must_use]
    pub(crate) fn detokenizer(self: &Arc<Self>) -> Detokenizer {
        // Asked of the decoder itself, as decoders are often several in a row.
        let byte_fallback = self.written(&["<0x41>".to_owned()]).is_ok_and(|text| text == "A");
        Detokenizer { pipeline: Arc::clone(self), byte_fallback, tokens: Vec::new(), shown: 0 }
    }

    /// Tokens as text, as the tokenizer's own decoding writes them.
    fn written(&self, tokens: &[String]) -> Result<String, TextError> {
        match self.tokenizer.get_decoder() {
            // Not every decoder knows what to make of nothing.
            _ if tokens.is_empty() => Ok(String::new()),
            Some(decoder) => decoder.decode(tokens.to_vec()).map_err(|error| TextError::Undecodable(error.to_string())),
            None => Ok(tokens.join(" ")),
        }
    }

    /// The tokens that end the model's turn: its end-of-sequence token, where it names one, and `more`.
    ///
    /// # Errors
    /// When the tokenizer doesn't know one of them.
    pub(crate) fn end_ids(&self, more: &[String]) -> Result<Vec<u32>, TextError> {
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
    /// Takes the next token; gives the letters that are whole now, perhaps none. Special tokens, and ids that are no
    /// token, stand for no letters.
    ///
    /// # Errors
    /// When the tokenizer can't decode it.
    pub(crate) fn push(&mut self, id: u32) -> Result<String, TextError> {
        let tokenizer = &self.pipeline.tokenizer;
        let special = |token: &String| tokenizer.get_added_vocabulary().is_special_token(token);
        let Some(token) = tokenizer.id_to_token(id).filter(|token| !special(token)) else { return Ok(String::new()) };
        let byte = self.byte_fallback && is_byte(&token);
        self.tokens.push(token);
        if byte {
            return Ok(String::new());
        }
        // A letter is four bytes at most: in a long run of tokens that make none, all others are as they were.
        let last = self.tokens.len().saturating_sub(CONTEXT).max(self.shown);
        if last > self.shown && half(&self.pipeline.written(&self.tokens[last..])?) {
            return Ok(String::new());
        }
        let text = self.waiting()?;
        if half(&text) {
            return Ok(String::new());
        }
        let kept = self.tokens.len().saturating_sub(CONTEXT);
        self.tokens.drain(..kept);
        self.shown = self.tokens.len();
        Ok(text)
    }

    /// The text is at its end: what waited for more, as it is.
    ///
    /// # Errors
    /// When the tokenizer can't decode it.
    pub(crate) fn finish(self) -> Result<String, TextError> {
        self.waiting()
    }

    /// What the tokens that wait add to the text.
    fn waiting(&self) -> Result<String, TextError> {
        let before = self.pipeline.written(&self.tokens[..self.shown])?;
        let text = self.pipeline.written(&self.tokens)?;
        let added = text.strip_prefix(&before).map(str::to_owned);
        added.ok_or_else(|| TextError::Undecodable(format!("{before:?} became {text:?} with the tokens that followed")))
    }
}

/// Whether the text may end with half a letter.
fn half(text: &str) -> bool {
    text.ends_with(char::REPLACEMENT_CHARACTER)
}

/// Whether a token of a tokenizer with byte fallback is a byte.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn load(model: &serde_json::Value, decoder: &serde_json::Value, special: [u32; 2]) -> (TempDir, Arc<TextPipeline>) {
        let added = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(special[0], "<s>"), added(special[1], "</s>")],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": decoder, "model": model,
        });
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let config = toml::from_str("render = \"raw\"\neos_token = \"</s>\"\nmax_tokens = 64").unwrap();
        let pipeline = TextPipeline::load(folder.path(), &config).unwrap();
        (folder, Arc::new(pipeline))
    }

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
        let decoder =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        load(&json!({"type": "BPE", "vocab": vocabulary, "merges": []}), &decoder, [256, 257])
    }

    /// Two special tokens, words of a sentence-piece and a word-piece vocabulary, then bytes: 12 is `<0x00>`.
    fn words(decoder: &serde_json::Value) -> (TempDir, Arc<TextPipeline>) {
        let words = [
            "<s>",
            "</s>",
            "\u{2581}",
            "\u{2581}a",
            "b",
            "##c",
            "##",
            "\u{2581}\u{2581}",
            "\u{fffd}",
            "do not",
            ".",
            "\u{e9}",
        ];
        let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
        let all = words.into_iter().map(str::to_owned).chain(bytes);
        let vocabulary: serde_json::Map<_, _> = all.enumerate().map(|(id, word)| (word, json!(id))).collect();
        load(&json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "##"}), decoder, [0, 1])
    }

    /// As Llama 2 and Mistral write it.
    fn llama() -> serde_json::Value {
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]})
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

    /// The id of a byte in [`words`].
    fn byte(byte: u8) -> u32 {
        12 + u32::from(byte)
    }

    #[test]
    fn a_run_of_bytes_is_shown_once_it_has_ended() {
        let (_folder, pipeline) = words(&llama());
        let euro = "\u{20ac}".bytes().map(byte);
        let ids: Vec<u32> = [3, byte(b'\n')].into_iter().chain(euro).chain([3, 0, byte(b'\n')]).collect();
        assert_eq!(pieces(&pipeline, &ids), ["a", "", "", "", "", "\n\u{20ac} a", "", "", "\n"]);
        // One byte that is none of a letter takes the run with it, as when all is decoded at once.
        let bad = [3, byte(b'\n'), byte(0xF0), 4];
        assert_eq!(pieces(&pipeline, &bad), ["a", "", "", "\u{fffd}\u{fffd}b", ""]);
        assert_eq!(pieces(&pipeline, &[3, byte(b'\n'), byte(0xE2), byte(0x82)]).concat(), "a\u{fffd}\u{fffd}\u{fffd}");
        let (_folder, plain) = words(&json!({"type": "Fuse"}));
        assert_eq!(pieces(&plain, &[4, byte(b'\n')]), ["b", "<0x0A>", ""], "here it is no byte");
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

        #[test]
        fn the_pieces_are_the_text_whatever_the_decoder(
            first in 2..12_u32,
            ids in prop::collection::vec(prop_oneof![3 => 0..12_u32, 2 => 12..268_u32, 1 => Just(9_999)], 0..40),
            letters in prop::collection::vec(prop_oneof!["[a-z]", "\\PC", "[\n\u{fffd}]"], 0..6),
        ) {
            let decoders = [
                llama(),
                json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "\u{2581}",
                       "prepend_scheme": "always", "split": true}]}),
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": true}),
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
                json!({"type": "BPEDecoder", "suffix": "c"}),
                json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}),
                json!(null),
            ];
            let spelt = letters.concat().into_bytes().into_iter().map(byte);
            let ids: Vec<u32> = [first].into_iter().chain(ids).chain(spelt).collect();
            for decoder in decoders {
                let (_folder, pipeline) = words(&decoder);
                let whole = pipeline.tokenizer.decode(&ids, true).unwrap();
                prop_assert_eq!(pieces(&pipeline, &ids).concat(), whole, "{}", decoder);
            }
        }
    }
}
