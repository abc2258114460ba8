//! Which fields of a row hold what.

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
}

impl FieldArguments {
    /// The sample in a row, or what the row lacks.
    pub(in crate::cli) fn input(&self, fields: &Map<String, Value>) -> Result<Input, String> {
        let input = match (fields.get(&self.response), fields.get(&self.messages)) {
            (Some(response), _) => {
                let response = text(response).ok_or_else(|| format!("{:?} is no text", self.response))?;
                let prompt = fields.get(&self.prompt).ok_or_else(|| format!("has no {:?}", self.prompt))?;
                answer(prompt, response).map_err(|reason| format!("{:?} {reason}", self.prompt))?
            }
            (None, Some(turns)) => {
                Input::Messages { messages: messages(turns).map_err(|reason| format!("{:?} {reason}", self.messages))? }
            }
            (None, None) => {
                return Err(format!(
                    "has neither {:?} nor {:?}; name the fields with --response or --messages",
                    self.response, self.messages
                ));
            }
        };
        input.sample()?;
        Ok(input)
    }
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
        FieldArguments { prompt: "q".to_owned(), response: "a".to_owned(), messages: "turns".to_owned() }
    }

    fn input(row: &Value) -> Result<Input, String> {
        fields().input(row.as_object().unwrap())
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
            (json!({"q": "why"}), "--response"),
            (json!({"q": "why", "a": 3}), "\"a\" is no text"),
            (json!({"q": "why", "a": " "}), "response is empty"),
            (json!({"turns": [{"role": "user", "content": "why"}]}), "assistant"),
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
