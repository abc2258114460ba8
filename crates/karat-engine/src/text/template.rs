//! Chat templates in Jinja, as Hugging Face tokenizers carry them.
//!
//! Rendered with the settings that Transformers uses (`trim_blocks`, `lstrip_blocks`, Python's string methods,
//! `raise_exception`, `tojson`). `strftime_now` is left undefined, so that templates which would write today's date
//! fall back to their fixed one: a score must not depend on the day.

use std::{fs, path::Path};

use karat_rules::domain::Message;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;

use super::{TextConfig, TextError};

/// The special tokens that templates and padding use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SpecialTokens {
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
    pub(super) pad: Option<String>,
}

impl SpecialTokens {
    /// The tokens that the manifest names, or else `tokenizer_config.json` beside the tokenizer.
    pub(super) fn load(folder: &Path, config: &TextConfig) -> Result<Self, TextError> {
        let hub = tokenizer_config(folder, config)?;
        // A special token is written as text or as an object that holds the text.
        let read = |key: &str| {
            let token = hub.get(key)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        Ok(Self {
            bos: config.bos_token.clone().or_else(|| read("bos_token")),
            eos: config.eos_token.clone().or_else(|| read("eos_token")),
            pad: config.pad_token.clone().or_else(|| read("pad_token")),
        })
    }
}

/// The `tokenizer_config.json` beside the tokenizer, or null when there is none.
fn tokenizer_config(folder: &Path, config: &TextConfig) -> Result<Value, TextError> {
    let path = folder.join(&config.tokenizer).with_file_name("tokenizer_config.json");
    if !path.exists() {
        return Ok(Value::Null);
    }
    let file_error = |reason: String| TextError::File { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| file_error(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| file_error(error.to_string()))
}

/// A compiled chat template.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    tokens: SpecialTokens,
}

const NAME: &str = "chat_template";

impl Template {
    /// Compiles a template.
    pub(super) fn new(source: String, tokens: SpecialTokens) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(|error| TextError::Config {
            key: "text.render",
            reason: format!("the chat template is not valid Jinja: {error:#}"),
        })?;
        Ok(Self { environment, tokens })
    }

    pub(super) fn from_file(path: &Path, tokens: SpecialTokens) -> Result<Self, TextError> {
        let source = fs::read_to_string(path)
            .map_err(|error| TextError::File { path: path.to_owned(), reason: error.to_string() })?;
        Self::new(source, tokens)
    }

    /// The template that the model came with: `chat_template.jinja`, or the entry in `tokenizer_config.json`.
    pub(super) fn of_model(folder: &Path, config: &TextConfig, tokens: SpecialTokens) -> Result<Self, TextError> {
        let file = folder.join(&config.tokenizer).with_file_name("chat_template.jinja");
        if file.exists() {
            return Self::from_file(&file, tokens);
        }
        let hub = tokenizer_config(folder, config)?;
        // Models with several templates list them by name; the one for chatting is "default".
        let default = |templates: &Vec<Value>| {
            templates.iter().find(|template| template["name"] == "default")?["template"].as_str().map(str::to_owned)
        };
        let source = match &hub["chat_template"] {
            Value::String(source) => Some(source.clone()),
            Value::Array(templates) => default(templates),
            _ => None,
        };
        let source = source.ok_or(TextError::Config {
            key: "text.render",
            reason: "\"chat_template\" needs a chat_template.jinja or a tokenizer_config.json with a chat_template \
                     beside the tokenizer; neither was found. Add one, or write the template as { jinja = \"…\" }"
                .to_owned(),
        })?;
        Self::new(source, tokens)
    }

    /// Renders turns; `opening` leaves the text where the assistant's next turn begins.
    pub(super) fn render(&self, messages: &[Message], opening: bool) -> Result<String, TextError> {
        let refused = |error: Error| TextError::Template(error.to_string());
        self.environment
            .get_template(NAME)
            .map_err(refused)?
            .render(context! {
                messages => messages,
                bos_token => self.tokens.bos.as_deref().unwrap_or(""),
                eos_token => self.tokens.eos.as_deref().unwrap_or(""),
                add_generation_prompt => opening,
            })
            .map_err(refused)
    }
}
