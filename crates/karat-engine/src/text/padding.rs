//! Which token fills short rows of a batch: the one that the model takes for padding.
//!
//! Some graphs find the end of a text by it, whatever their mask says, and read another place where something else pads.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    TextConfig, TextError,
    template::{self, SpecialTokens},
};

/// The token's id: of what the model looks for (`pad_token_id` of `config.json`, of its `text_config` where it has one),
/// else of what its tokenizer pads with (`tokenizer_config.json` and `special_tokens_map.json` before `section`, the `padding`
/// of `tokenizer.json`), else 0. So do Transformers' sequence classifiers and tokenizers (5.24,
/// `GenericForSequenceClassification` and `TokenizersBackend`).
///
/// # Errors
/// When a token that is named isn't one of the tokenizer's, or the manifest's is another than the model looks for.
pub(super) fn padding(
    folder: &Path,
    config: &TextConfig,
    tokens: &SpecialTokens,
    tokenizer: &Tokenizer,
    section: Option<u32>,
) -> Result<u32, TextError> {
    let refuse = |reason| TextError::Config { key: "text.pad_token", reason };
    let named = match tokens.get("pad_token") {
        None => None,
        Some(token) => Some(tokenizer.token_to_id(token).ok_or_else(|| {
            refuse(format!("the tokenizer doesn't know the token {token:?}; write one of its vocabulary"))
        })?),
    };
    let looked_for = looked_for(&template::beside(folder, config, "config.json")?);
    match (looked_for, named, &config.pad_token) {
        (Some(looked_for), Some(named), Some(written)) if looked_for != named => {
            let wanted = match tokenizer.id_to_token(looked_for) {
                Some(token) => format!("write pad_token = {token:?}, or remove the key"),
                None => "remove the key".to_owned(),
            };
            Err(refuse(format!(
                "{written:?} is token {named}, and config.json says that the model looks for {looked_for} \
                 (pad_token_id); {wanted}"
            )))
        }
        (Some(looked_for), ..) => Ok(looked_for),
        (None, Some(named), _) => Ok(named),
        (None, None, _) => Ok(section.unwrap_or(0)),
    }
}

/// `pad_token_id` of a configuration; -1 and null stand for none.
fn looked_for(configuration: &Value) -> Option<u32> {
    let of = |configuration: &Value| u32::try_from(configuration.get("pad_token_id")?.as_u64()?).ok();
    configuration.get("text_config").and_then(of).or_else(|| of(configuration))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::shared::{Shared, SharedTokenizers},
        *,
    };

    /// A tokenizer whose own padding is `<c>`, token 3, and what lies beside it.
    fn padded(files: &[(&str, Value)], more: &str) -> Result<u32, TextError> {
        let folder = tempfile::tempdir().unwrap();
        let vocabulary = json!({"<unk>": 0, "<a>": 1, "<b>": 2, "<c>": 3});
        let own = json!({"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": 3,
                         "pad_type_id": 0, "pad_token": "<c>"});
        let tokenizer = json!({"version": "1.0", "padding": own,
                               "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}});
        for (name, content) in files.iter().chain(&[("tokenizer.json", tokenizer)]) {
            std::fs::write(folder.path().join(name), content.to_string()).unwrap();
        }
        let config: TextConfig = toml::from_str(&format!("render = \"raw\"\nmax_tokens = 8\n{more}")).unwrap();
        let Shared { tokenizer, padding: section } =
            SharedTokenizers::default().read(&folder.path().join("tokenizer.json")).unwrap();
        padding(folder.path(), &config, &SpecialTokens::load(folder.path(), &config)?, &tokenizer, section)
    }

    /// As a classifier of Transformers 5.24 finds the end of a text, and its tokenizer pads.
    #[test]
    fn the_padding_is_the_one_that_the_model_looks_for() {
        let map = ("special_tokens_map.json", json!({"pad_token": "<b>"}));
        let settings = ("tokenizer_config.json", json!({"pad_token": "<a>"}));
        let model = |id: Value| ("config.json", json!({"pad_token_id": id}));
        assert_eq!(padded(&[], "").unwrap(), 3);
        assert_eq!(padded(std::slice::from_ref(&settings), "").unwrap(), 1);
        assert_eq!(padded(&[settings.clone(), map.clone()], "").unwrap(), 2);
        assert_eq!(padded(&[settings.clone(), map.clone(), model(json!(3))], "").unwrap(), 3);
        for none in [json!(null), json!(-1)] {
            assert_eq!(padded(&[settings.clone(), model(none)], "").unwrap(), 1);
        }
        let wrapped = json!({"pad_token_id": 1, "text_config": {"pad_token_id": 2}});
        assert_eq!(padded(&[("config.json", wrapped)], "").unwrap(), 2);
        assert_eq!(padded(&[settings, model(json!(2))], "pad_token = \"<b>\"").unwrap(), 2);
    }

    #[test]
    fn a_manifest_that_contradicts_the_model_is_told_what_to_write() {
        let error = padded(&[("config.json", json!({"pad_token_id": 2}))], "pad_token = \"<a>\"").unwrap_err();
        let told = error.to_string();
        for needle in ["text.pad_token", "\"<a>\" is token 1", "looks for 2", "pad_token = \"<b>\""] {
            assert!(told.contains(needle), "{needle} is not in {told}");
        }
    }
}
