//! What the folder's tokenizer says: how long samples may be, and whether there is a chat template.

use std::{fs, path::Path};

use serde_json::Value;

use crate::problems::Problems;

/// Some tokenizers say that they have no bound by a number like 1e30.
const LARGEST_BOUND: f64 = 1e7;

/// What is known of a tokenizer without loading it.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The most tokens that it was made for.
    pub(crate) longest: Option<usize>,
    /// Whether a chat template lies beside it.
    pub(crate) chat_template: bool,
    /// The highest token id.
    highest: usize,
    tokenizer: Value,
}

impl Tokens {
    /// Reads `tokenizer.json` and `tokenizer_config.json`.
    pub(crate) fn read(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let Some(tokenizer) = json(&folder.join("tokenizer.json"), problems)? else {
            return problems.add(
                "there is no tokenizer.json; load the tokenizer in Transformers and call save_pretrained(folder), which \
                 writes it",
            );
        };
        let settings = json(&folder.join("tokenizer_config.json"), problems)?.unwrap_or(Value::Null);
        let longest = settings["model_max_length"].as_f64().filter(|most| (1.0..LARGEST_BOUND).contains(most));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies in a small range")]
        let longest = longest.map(|most| most as usize);
        let written = &settings["chat_template"];
        let files = ["chat_template.jinja", "additional_chat_templates/default.jinja"];
        let file = files.into_iter().any(|file| folder.join(file).is_file());
        let chat_template = file || written.is_string() || written.is_array();
        Some(Self { longest, chat_template, highest: highest(&tokenizer), tokenizer })
    }

    /// How `tokenizer.json` writes a token.
    pub(crate) fn text(&self, id: u32) -> Option<String> {
        let has_id = |found: &Value| found.as_u64() == Some(u64::from(id));
        let mut added = self.tokenizer["added_tokens"].as_array().into_iter().flatten();
        let added = added.find(|token| has_id(&token["id"])).and_then(|token| token["content"].as_str());
        let vocabulary = &self.tokenizer["model"]["vocab"];
        let mapped = || vocabulary.as_object()?.iter().find(|(_, found)| has_id(found)).map(|(text, _)| text.as_str());
        let listed = || vocabulary.as_array()?.get(usize::try_from(id).ok()?)?[0].as_str();
        added.or_else(mapped).or_else(listed).map(str::to_owned)
    }

    /// Whether `tokenizer.json` adds such a token.
    pub(crate) fn knows(&self, token: &str) -> bool {
        self.tokenizer["added_tokens"]
            .as_array()
            .is_some_and(|added| added.iter().any(|known| known["content"] == token))
    }

    /// Whether every token has an embedding.
    pub(crate) fn check(&self, vocabulary: usize, problems: &mut Problems) {
        if self.highest >= vocabulary {
            problems.add::<()>(format!(
                "tokenizer.json has a token {}, and the embeddings end at {}: it is another model's",
                self.highest,
                vocabulary.saturating_sub(1)
            ));
        }
    }
}

fn highest(tokenizer: &Value) -> usize {
    let vocabulary = &tokenizer["model"]["vocab"];
    // A map of token to id, or, of unigram models, a list whose places are the ids.
    let listed = vocabulary.as_array().map_or(0, |list| list.len().saturating_sub(1));
    let mapped = vocabulary.as_object().into_iter().flat_map(|map| map.values()).filter_map(Value::as_u64).max();
    let added =
        tokenizer["added_tokens"].as_array().into_iter().flatten().filter_map(|token| token["id"].as_u64()).max();
    let highest = mapped.into_iter().chain(added).max().and_then(|id| usize::try_from(id).ok()).unwrap_or(0);
    highest.max(listed)
}

/// A JSON file, if it is there.
fn json(path: &Path, problems: &mut Problems) -> Option<Option<Value>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !path.is_file() {
        return Some(None);
    }
    let read = fs::read(path).map_err(|error| format!("{name} can't be read: {error}"));
    let parsed = read.and_then(|bytes| {
        serde_json::from_slice(&bytes).map_err(|error| format!("{name} is damaged ({error}); fetch it anew"))
    });
    problems.take(parsed).map(Some)
}
