//! The special tokens of a tokenizer by name, as Transformers gathers them from its files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::text::{TextConfig, TextError};

/// Special tokens by the names that templates know them by, such as `bos_token`. One that isn't set isn't there, and is
/// undefined in a template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::text) struct SpecialTokens(BTreeMap<String, String>);

impl SpecialTokens {
    /// The tokens that the manifest names, or else the files beside the tokenizer.
    ///
    /// `tokenizer_config.json` counts; `special_tokens_map.json` overrides it in folders of old, which are those whose
    /// `tokenizer_config.json` has no `added_tokens_decoder` (Transformers 5.24, `PreTrainedTokenizerBase._from_pretrained`).
    pub(in crate::text) fn load(folder: &Path, config: &TextConfig) -> Result<Self, TextError> {
        let settings = beside(folder, config, "tokenizer_config.json")?;
        let mut tokens = Self::default();
        tokens.read(&settings);
        if settings.get("added_tokens_decoder").is_none() {
            tokens.read(&beside(folder, config, "special_tokens_map.json")?);
        }
        let stated =
            [("bos_token", &config.bos_token), ("eos_token", &config.eos_token), ("pad_token", &config.pad_token)];
        for (name, token) in stated {
            if let Some(token) = token {
                tokens.0.insert(name.to_owned(), token.clone());
            }
        }
        Ok(tokens)
    }

    fn read(&mut self, settings: &Value) {
        let named = settings.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        let extra = ["extra_special_tokens", "model_specific_special_tokens"];
        let extra = extra.into_iter().filter_map(|key| settings.get(key)?.as_object()).flatten();
        for (name, token) in named.chain(extra) {
            // A special token is written as text or as an object that holds the text.
            match token.as_str().or_else(|| token.get("content")?.as_str()) {
                Some(text) => drop(self.0.insert(name.clone(), text.to_owned())),
                // Switches such as add_bos_token end alike.
                None if token.is_null() => drop(self.0.remove(name)),
                None => {}
            }
        }
    }

    /// A token by its name.
    pub(in crate::text) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every token with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

/// Where a file beside the tokenizer lies.
pub(super) fn path_beside(folder: &Path, config: &TextConfig, name: &str) -> PathBuf {
    folder.join(&config.tokenizer).with_file_name(name)
}

/// A JSON file beside the tokenizer, or null when there is none.
pub(in crate::text) fn beside(folder: &Path, config: &TextConfig, name: &str) -> Result<Value, TextError> {
    let path = path_beside(folder, config, name);
    if !path.exists() {
        return Ok(Value::Null);
    }
    let file_error = |reason: String| TextError::File { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| file_error(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| file_error(error.to_string()))
}
