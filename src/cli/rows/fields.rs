//! Which fields of a row hold what.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use karat_rules::domain::{Message, Role};
use serde_json::{Map, Value};

use super::transcript;
use crate::cli::backend::Input;

/// Flags that name the fields of a row.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FieldArguments {
    /// The field with what was asked: a text, or a list of messages.
    #[arg(long, default_value = "prompt", value_name = "FIELD")]
    pub(in crate::cli) prompt: String,

    /// The field with the response.
    #[arg(long, default_value = "response", value_name = "FIELD")]
    pub(in crate::cli) response: String,

    /// The field with a whole dialogue as a list of messages ("role" and "content") that ends with the response; it is
    /// taken where a row has no response.
    #[arg(long, default_value = "messages", value_name = "FIELD")]
    pub(in crate::cli) messages: String,

    /// The field with an image, of models that see: a file, seen from the folder of FILE, or a data URI. It is taken where
    /// a row has no response.
    #[arg(long, default_value = "image", value_name = "FIELD")]
    pub(in crate::cli) image: String,
}

/// The field with images that a row's image should be like.
const REFERENCE_IMAGES: &str = "reference_images";

impl FieldArguments {
    /// The sample in a row, or what the row lacks; files that it names are seen from `folder`.
    pub(in crate::cli) fn input(&self, fields: &Map<String, Value>, folder: &Path) -> Result<Input, String> {
        let found = [&self.response, &self.image, &self.messages].map(|name| fields.get(name));
        let input = match found {
            [Some(response), ..] => {
                let response = text(response).ok_or_else(|| format!("{:?} is no text", self.response))?;
                let prompt = fields.get(&self.prompt).ok_or_else(|| format!("has no {:?}", self.prompt))?;
                answer(prompt, response).map_err(|reason| format!("{:?} {reason}", self.prompt))?
            }
            [None, Some(_), Some(_)] => {
                return Err(format!(
                    "has {:?} and {:?}, of which one is scored; give --image or --messages a field that no row has",
                    self.image, self.messages
                ));
            }
            [None, Some(written), None] => self.seen(fields, written, folder)?,
            [None, None, Some(turns)] => {
                Input::Messages { messages: messages(turns).map_err(|reason| format!("{:?} {reason}", self.messages))? }
            }
            [None, None, None] => {
                return Err(format!(
                    "has none of {:?}, {:?} and {:?}; name the fields with --response, --messages or --image",
                    self.response, self.messages, self.image
                ));
            }
        };
        input.sample()?;
        Ok(input)
    }

    /// An image with what it was made for.
    fn seen(&self, fields: &Map<String, Value>, written: &Value, folder: &Path) -> Result<Input, String> {
        let prompt = match fields.get(&self.prompt) {
            None => String::new(),
            Some(prompt) => text(prompt).ok_or_else(|| format!("{:?} of an image is a text", self.prompt))?,
        };
        let read = |name: &str, written| image(written, folder).map_err(|reason| format!("{name:?} {reason}"));
        let reference_images = match fields.get(REFERENCE_IMAGES) {
            None => Vec::new(),
            Some(Value::Array(all)) => {
                all.iter().map(|written| read(REFERENCE_IMAGES, written)).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(format!("{REFERENCE_IMAGES:?} is no list")),
        };
        Ok(Input::Image { prompt, image: read(&self.image, written)?, reference_images })
    }
}

/// An image as a data URI: as it is written, or the file of that name.
fn image(written: &Value, folder: &Path) -> Result<String, String> {
    let written = written.as_str().ok_or("is neither a file's name nor a data URI")?;
    if written.starts_with("data:") {
        return Ok(written.to_owned());
    }
    if written.contains("://") {
        return Err("is a URL, and nothing is fetched; name a file, or write data:image/png;base64,…".to_owned());
    }
    let path = folder.join(written);
    let bytes = fs::read(&path).map_err(|error| format!("names {}, which can't be read: {error}", path.display()))?;
    Ok(format!("data:image/*;base64,{}", BASE64_STANDARD.encode(bytes)))
}

/// A text field's text.
pub(in crate::cli) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The samples of one side of a preference: a response, a whole dialogue, or a list of either.
pub(in crate::cli) fn answers(prompt: Option<&Value>, side: &Value) -> Result<Vec<Input>, String> {
    let one = |value: &Value| -> Result<Input, String> {
        let input = match (value, prompt) {
            (Value::Array(_), _) => Input::Messages { messages: messages(value)? },
            (Value::String(response), Some(prompt)) => answer(prompt, response.clone())?,
            (Value::String(response), None) => match transcript::turns(response) {
                Some(messages) => Input::Messages { messages },
                None => return Err("is a text, and the row has no prompt".to_owned()),
            },
            _ => return Err("is neither a text nor a list of messages".to_owned()),
        };
        input.sample()?;
        Ok(input)
    };
    match side {
        Value::Array(entries) if entries.first().is_some_and(|entry| !entry.is_object()) => {
            entries.iter().map(one).collect()
        }
        Value::Array(entries) if entries.is_empty() => Err("is empty".to_owned()),
        side => Ok(vec![one(side)?]),
    }
}

fn answer(prompt: &Value, response: String) -> Result<Input, String> {
    match prompt {
        Value::String(prompt) => Ok(Input::Pair { prompt: prompt.clone(), response }),
        turns => {
            let mut messages = messages(turns)?;
            messages.push(Message { role: Role::Assistant, content: response });
            Ok(Input::Messages { messages })
        }
    }
}

/// Turns as a list of objects, of whose fields role and content count.
fn messages(value: &Value) -> Result<Vec<Message>, String> {
    let turns = value.as_array().ok_or("is neither a text nor a list of messages")?;
    let turn = |turn: &Value| {
        let role = serde_json::from_value(turn.get("role")?.clone()).ok()?;
        Some(Message { role, content: turn.get("content").and_then(text)? })
    };
    turns.iter().map(turn).collect::<Option<_>>().ok_or_else(|| {
        "holds a message without the role system, user, assistant or tool, or without a text as content".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields() -> FieldArguments {
        FieldArguments {
            prompt: "q".to_owned(),
            response: "a".to_owned(),
            messages: "turns".to_owned(),
            image: "image".to_owned(),
        }
    }

    fn input(row: &Value) -> Result<Input, String> {
        fields().input(row.as_object().unwrap(), Path::new("nowhere"))
    }

    #[test]
    fn fields_are_found_under_their_names() {
        let pair = Input::Pair { prompt: "why".to_owned(), response: "so".to_owned() };
        assert_eq!(input(&json!({"q": "why", "a": "so", "other": 1})), Ok(pair));
        let turns = json!([{"role": "user", "content": "why"}, {"role": "assistant", "content": "so", "weight": 1}]);
        let Ok(Input::Messages { messages }) = input(&json!({"turns": turns})) else { panic!("no messages") };
        assert_eq!(messages[1].content, "so");
        let Ok(Input::Messages { messages }) = input(&json!({"q": [turns[0]], "a": "so"})) else { panic!("no turns") };
        assert_eq!((messages.len(), messages[1].role), (2, Role::Assistant));
    }

    #[test]
    fn what_a_row_lacks_is_told() {
        for (row, needle) in [
            (json!({"a": "so"}), "has no \"q\""),
            (json!({"q": "why"}), "--image"),
            (json!({"q": "why", "a": 3}), "\"a\" is no text"),
            (json!({"q": "why", "a": " "}), "response is empty"),
            (json!({"turns": [{"role": "user", "content": "why"}]}), "assistant"),
            (json!({"q": 3, "image": "data:image/png;base64,AA=="}), "\"q\" of an image"),
            (json!({"image": "none.png"}), "nowhere/none.png"),
            (json!({"image": "https://images.example/a.png"}), "nothing is fetched"),
            (json!({"image": "data:image/png;base64,*"}), "not base64"),
            (json!({"image": "data:image/png;base64,AA==", "reference_images": "one.png"}), "no list"),
            (json!({"turns": [{"role": "nobody", "content": "why"}]}), "role"),
        ] {
            let error = input(&row).unwrap_err();
            assert!(error.contains(needle), "{row}: {error}");
        }
    }

    #[test]
    fn a_side_is_one_answer_or_several_or_a_dialogue() {
        let prompt = json!("why");
        assert_eq!(answers(Some(&prompt), &json!("so")).unwrap().len(), 1);
        assert_eq!(answers(Some(&prompt), &json!(["so", "thus"])).unwrap().len(), 2);
        let dialogue = json!([{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]);
        assert_eq!(answers(None, &dialogue).unwrap().len(), 1);
        assert_eq!(answers(None, &json!([dialogue, dialogue])).unwrap().len(), 2);
        for bad in [json!([]), json!(["so", " "]), json!(4), json!(null)] {
            assert!(answers(Some(&prompt), &bad).is_err(), "{bad}");
        }
        assert!(answers(None, &json!("so")).is_err());
        let transcript = json!("\n\nHuman: why?\n\nAssistant: so");
        let dialogue = answers(None, &transcript).unwrap();
        let [Input::Messages { messages }] = &dialogue[..] else { panic!("no dialogue") };
        assert_eq!(messages[0].content, "why?");
        // Beside a prompt it is a response like any other.
        assert!(matches!(answers(Some(&prompt), &transcript).as_deref(), Ok([Input::Pair { .. }])));
    }
}
