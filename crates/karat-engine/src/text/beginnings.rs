//! What several texts begin with is tokenised once: candidates of one prompt come one by one, each rendered as a whole.
//!
//! Prompt and response are never tokenised apart, since the last token of the one may depend on the first letters of the
//! other. But nothing of a tokenizer reaches across a control token that stands for itself: a text may be cut right behind
//! one. The first part ends with that token, and the second begins with it once more, so that whatever looks at its
//! neighbours finds what it would find in the whole text.

use std::sync::Arc;

use tokenizers::{Encoding, OffsetType, PreTokenizer as _, Tokenizer};

/// A shorter beginning is tokenised as soon as it is looked up.
const SHORTEST: usize = 512;
/// So near to a response the control token is looked for behind which its text is cut: templates write one right before.
const NEAR: usize = 128;
/// The memory that known beginnings take, in bytes.
const CAPACITY: u64 = 4 << 20;
/// What a token of an encoding takes: its numbers, and the letters that it is written with.
const TOKEN_BYTES: usize = 96;

/// The beginnings of texts that were tokenised last.
#[derive(Debug)]
pub(super) struct Beginnings {
    fences: Vec<Fence>,
    known: moka::sync::Cache<Arc<str>, Arc<Encoding>>,
}

/// A control token behind which a text may be cut.
#[derive(Debug)]
struct Fence {
    id: u32,
    content: String,
}

/// Where a text is cut: behind a fence.
struct Cut<'a> {
    fence: &'a Fence,
    end: usize,
}

impl Beginnings {
    /// None yet, of texts for that tokenizer.
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        // Some tokenizers have thousands of added tokens; templates write the special ones.
        // Any of these takes letters around it, depends on them, or is looked for in what a normaliser made of a text.
        let stands_for_itself = |content: &str| !content.is_empty() && content.trim() == content;
        let fences = added.iter().filter(|(_, token)| {
            let plain = token.special && !(token.normalized || token.single_word || token.lstrip || token.rstrip);
            // The longest token wins: where another one contains it, what follows decides.
            let contains = |other: &str| other.len() > token.content.len() && other.contains(&token.content);
            plain && stands_for_itself(&token.content) && !added.values().any(|other| contains(&other.content))
        });
        let fences = fences.map(|(id, token)| Fence { id: *id, content: token.content.clone() });
        let weigh = |text: &Arc<str>, known: &Arc<Encoding>| {
            u32::try_from(text.len() + known.len() * TOKEN_BYTES).unwrap_or(u32::MAX)
        };
        let known = moka::sync::Cache::builder().max_capacity(CAPACITY).weigher(weigh).build();
        Self { fences: fences.collect(), known }
    }

    /// The tokens of a text whose response begins at that byte, before what a tokenizer puts around them; `None` where the
    /// text can't be cut, or it isn't worth it.
    ///
    /// # Errors
    /// When the tokenizer can't encode it.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        response: usize,
    ) -> Result<Option<Encoding>, tokenizers::Error> {
        // No cut lies behind the response's beginning.
        if response < SHORTEST {
            return Ok(None);
        }
        let Some(Cut { fence, end }) = self.cut(text, response).filter(|cut| cut.end >= SHORTEST) else {
            return Ok(None);
        };
        let beginning = &text[..end];
        let known = match self.known.get(beginning) {
            Some(known) => known,
            None => {
                let encoded = Arc::new(encode(tokenizer, beginning)?);
                self.known.insert(beginning.into(), Arc::clone(&encoded));
                encoded
            }
        };
        let start = end - fence.content.len();
        let rest = encode(tokenizer, &text[start..])?;
        // Taken for letters, or as a part of what stands before it.
        let ends = known.get_ids().last() == Some(&fence.id) && known.get_offsets().last() == Some(&(start, end));
        let begins =
            rest.get_ids().first() == Some(&fence.id) && rest.get_offsets().first() == Some(&(0, fence.content.len()));
        if !(ends && begins) {
            return Ok(None);
        }
        let mut whole = Encoding::clone(&known);
        whole.merge_with(behind_first(&rest, start), false);
        Ok(Some(whole))
    }

    /// The last place before the response, and near it, where a text may be cut.
    fn cut(&self, text: &str, response: usize) -> Option<Cut<'_>> {
        let from = (response.saturating_sub(NEAR)..=response).find(|at| text.is_char_boundary(*at))?;
        let near = text.get(from..response)?;
        let cuts = self.fences.iter().filter_map(|fence| {
            let end = from + near.rfind(&fence.content)? + fence.content.len();
            Some(Cut { fence, end })
        });
        cuts.max_by_key(|cut| cut.end)
    }
}

/// What [`Tokenizer::encode`] makes of a text before it is processed further.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Encoding, tokenizers::Error> {
    let mut split = tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut split)?;
    }
    let model = tokenizer.get_model();
    split.tokenize(|part| tokenizers::Model::tokenize(model, part.get()))?;
    split.into_encoding(None, 0, OffsetType::Byte)
}

/// All tokens but the first, which stand `start` bytes further on in the whole text.
fn behind_first(rest: &Encoding, start: usize) -> Encoding {
    let offsets = rest.get_offsets()[1..].iter().map(|(from, to)| (from + start, to + start));
    Encoding::new(
        rest.get_ids()[1..].to_vec(),
        rest.get_type_ids()[1..].to_vec(),
        rest.get_tokens()[1..].to_vec(),
        rest.get_word_ids()[1..].to_vec(),
        offsets.collect(),
        rest.get_special_tokens_mask()[1..].to_vec(),
        rest.get_attention_mask()[1..].to_vec(),
        Vec::new(),
        Default::default(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;

    /// Letters, white space and control tokens of all kinds: plain ones, one within another, and such as take what stands
    /// around them.
    const PIECES: [&str; 16] =
        ["<s>", "<e>", "<e>!", "<l>", "<r>", "<w>", "<n>", "a", "ab", "B", " ", "  ", "\n", "é", "<", "e>"];

    fn tokenizer(normalizer: &Value, pre_tokenizer: &Value, post_processor: &Value) -> Tokenizer {
        let added: Vec<Value> = PIECES[..7]
            .iter()
            .zip(100..)
            .map(|(content, id)| {
                json!({"id": id, "content": content, "single_word": *content == "<w>", "lstrip": *content == "<l>",
                    "rstrip": *content == "<r>", "normalized": *content == "<n>", "special": true})
            })
            .collect();
        let letters =
            ["a", "b", "B", "<", ">", "e", "!", " ", "\n", "é", "▁", "Ġ", "Ċ", "Ã", "©", "w", "n", "l", "r", "s"];
        let mut vocabulary: serde_json::Map<String, Value> =
            letters.iter().zip(1..).map(|(letter, id)| ((*letter).to_owned(), Value::from(id))).collect();
        for (id, merged) in [(0, "?"), (50, "ab"), (51, "▁a"), (52, "Ġa")] {
            vocabulary.insert(merged.to_owned(), id.into());
        }
        let json = json!({
            "version": "1.0", "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": post_processor, "decoder": null,
            "model": {"type": "BPE", "unk_token": "?", "vocab": vocabulary, "merges": ["a b", "▁ a", "Ġ a"]},
        });
        json.to_string().parse().unwrap()
    }

    fn tokenizers() -> Vec<Tokenizer> {
        let byte_level = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
        let metaspace =
            |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        let prepend = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        [
            (Value::Null, byte_level(false), byte_level(false)),
            (Value::Null, byte_level(true), byte_level(true)),
            (json!({"type": "Lowercase"}), json!({"type": "BertPreTokenizer"}), Value::Null),
            (Value::Null, metaspace("first"), Value::Null),
            (Value::Null, metaspace("always"), Value::Null),
            (prepend, Value::Null, Value::Null),
        ]
        .iter()
        .map(|(normalizer, pre_tokenizer, post_processor)| tokenizer(normalizer, pre_tokenizer, post_processor))
        .collect()
    }

    /// Everything that is read of tokens: all but which word each belongs to.
    fn read(encoding: &Encoding) -> Encoding {
        Encoding::new(
            encoding.get_ids().to_vec(),
            encoding.get_type_ids().to_vec(),
            encoding.get_tokens().to_vec(),
            vec![None; encoding.len()],
            encoding.get_offsets().to_vec(),
            encoding.get_special_tokens_mask().to_vec(),
            encoding.get_attention_mask().to_vec(),
            Vec::new(),
            Default::default(),
        )
    }

    proptest! {
        #[test]
        fn a_text_that_is_cut_has_the_tokens_of_the_whole(
            prompt in vec(select(&PIECES[..]), 1..60), response in vec(select(&PIECES[..]), 0..12),
        ) {
            let prompt = [vec!["a "; SHORTEST / 2], prompt].concat().concat();
            let text = format!("{prompt}{}", response.concat());
            for tokenizer in tokenizers() {
                let beginnings = Beginnings::new(&tokenizer);
                let whole = tokenizer.encode(text.as_str(), true).unwrap();
                // Once found out, and once known.
                for _ in 0..2 {
                    let Some(cut) = beginnings.encode(&tokenizer, &text, prompt.len()).unwrap() else { continue };
                    let cut = tokenizer.post_process(cut, None, true).unwrap();
                    prop_assert_eq!(read(&cut), read(&whole));
                }
            }
        }
    }

    #[test]
    fn every_kind_of_tokenizer_is_cut() {
        let prompt = format!("{}<s>a", "a ".repeat(SHORTEST));
        for tokenizer in tokenizers() {
            let cut = Beginnings::new(&tokenizer).encode(&tokenizer, &format!("{prompt}b"), prompt.len()).unwrap();
            assert!(cut.is_some());
        }
    }

    #[test]
    fn a_beginning_is_known_once_it_was_tokenised() {
        let tokenizers = tokenizers();
        let tokenizer = &tokenizers[0];
        let beginnings = Beginnings::new(tokenizer);
        let fences: std::collections::BTreeSet<&str> =
            beginnings.fences.iter().map(|fence| fence.content.as_str()).collect();
        assert_eq!(fences, ["<e>!", "<s>"].into(), "what is within another, takes blanks or wants words is none");
        let known = |beginnings: &Beginnings| {
            beginnings.known.run_pending_tasks();
            beginnings.known.entry_count()
        };
        let prompt = format!("{}<s>a", "a ".repeat(SHORTEST));
        let texts = [format!("{prompt}b"), format!("{prompt} B<e>!"), "short<s>b".to_owned()];
        for (text, response) in texts.iter().zip([prompt.len(), prompt.len(), 8]) {
            let cut = beginnings.encode(tokenizer, text, response).unwrap();
            assert_eq!(cut.is_some(), response > SHORTEST);
        }
        assert_eq!(known(&beginnings), 1);
    }
}
