//! Chat messages as OpenAI-style clients write them.

use karat_rules::domain::{Image, Message, Role, Sample};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{KnownFields, Unread, invalid};
use crate::api::{
    images::{self, ImageSource, ImageUrl},
    problem::Problem,
};

/// One turn, with whatever else a client adds to it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant`, `tool` or `function`.
    role: String,
    /// What was said: text, or a list of parts of text and images.
    #[serde(default)]
    content: Option<Content>,
    /// Calls of tools, which no template of karat renders: refused unless it is empty.
    #[serde(default)]
    tool_calls: Option<Vec<Value>>,
    #[serde(flatten)]
    #[schemars(skip)]
    unread: Unread,
}

/// What a turn may say that no template of karat's sees.
const OF_TURN: KnownFields = KnownFields {
    harmless: &["annotations", "id", "name", "refusal", "status", "tool_call_id", "type"],
    advice: &[
        ("reasoning_content", "no template of karat's renders it apart; write it into the content"),
        ("reasoning", "no template of karat's renders it apart; write it into the content"),
    ],
};

/// Text, or parts of text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a message's content must be a string or a list of {\"type\": \"text\", \"text\": …}")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// Text and images beside each other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "MessageParts")]
pub(crate) struct Parts {
    /// The parts, in order.
    content: Vec<Part>,
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
struct Part {
    /// `text`, `input_text` or `output_text`; `image`, `image_url` or `input_image`.
    r#type: String,
    /// What was said.
    #[serde(default)]
    text: Option<String>,
    /// An image as data.
    #[serde(default)]
    image: Option<ImageSource>,
    /// An image as data, in the shape of OpenAI's clients.
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

/// A prompt as a string or as messages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a prompt must be a string or a list of messages")]
pub(crate) enum Prompt {
    /// A string.
    Text(String),
    /// Messages.
    Messages(Vec<ChatMessage>),
}

impl Parts {
    /// The text and the images.
    ///
    /// # Errors
    /// When a part is neither, or an image isn't there as data.
    pub(crate) fn apart(self) -> Result<(String, Vec<Image>), String> {
        apart_of(self.content)
    }
}

fn apart_of(parts: Vec<Part>) -> Result<(String, Vec<Image>), String> {
    let (mut texts, mut images) = (String::new(), Vec::new());
    for part in parts {
        match (part.r#type.as_str(), part.text, part.image, part.image_url) {
            ("text" | "input_text" | "output_text", Some(text), ..) => texts.push_str(&text),
            ("image", _, Some(image), _) | ("image_url" | "input_image", _, _, Some(ImageUrl(image))) => {
                images.push(image.into_image()?);
            }
            (other, ..) => {
                return Err(format!("a part of type {other:?} can't be scored; send text, or an image as data"));
            }
        }
    }
    Ok((texts, images))
}

impl ChatMessage {
    /// Its text and its images.
    fn apart(self) -> Result<(Message, Vec<Image>), String> {
        self.unread.check(OF_TURN).map_err(|problem| problem.detail().to_owned())?;
        let role = match self.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            other => {
                return Err(format!("there is no role {other:?}; write one of system, user, assistant, tool"));
            }
        };
        if self.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err("the message calls tools, which can't be rendered; write the call into its content".to_owned());
        }
        let (content, images) = match self.content {
            None => (String::new(), Vec::new()),
            Some(Content::Text(text)) => (text, Vec::new()),
            Some(Content::Parts(parts)) => apart_of(parts)?,
        };
        Ok((Message { role, content }, images))
    }
}

/// The turns, each with its images, or what is wrong with one of them.
fn apart(place: &str, turns: Vec<ChatMessage>) -> Result<Vec<(Message, Vec<Image>)>, Problem> {
    let turns = turns.into_iter().enumerate();
    turns.map(|(index, turn)| turn.apart().map_err(|reason| invalid(format!("{place}[{index}]: {reason}")))).collect()
}

/// The turns as text, or what is wrong with one of them.
pub(crate) fn messages(place: &str, turns: Vec<ChatMessage>) -> Result<Vec<Message>, Problem> {
    let turns = apart(place, turns)?.into_iter().enumerate();
    let texts = turns.map(|(index, (message, images))| match images.as_slice() {
        [] => Ok(message),
        _ => Err(invalid(format!("{place}[{index}]: {}", images::about_images()))),
    });
    texts.collect()
}

/// A sample of the turns, the last of which is scored.
pub(crate) fn conversation(place: &str, turns: Vec<ChatMessage>) -> Result<Sample, Problem> {
    images::sample(apart(place, turns)?).map_err(|error| invalid(format!("{place}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<Message>, String> {
        let turns = serde_json::from_str(json).map_err(|error| error.to_string())?;
        messages("messages", turns).map_err(|problem| problem.detail().to_owned())
    }

    #[test]
    fn content_is_text_or_parts_of_text() {
        let parsed = parse(
            r#"[{"role":"developer","content":"Be brief.","name":"x"},
                {"role":"user","content":[{"type":"text","text":"Why"},{"type":"text","text":"?"}]},
                {"role":"assistant","content":"So.","tool_calls":[]}]"#,
        );
        let parsed = parsed.unwrap();
        let turns: Vec<_> = parsed.iter().map(|turn| (turn.role, turn.content.as_str())).collect();
        assert_eq!(turns, [(Role::System, "Be brief."), (Role::User, "Why?"), (Role::Assistant, "So.")]);
    }

    #[test]
    fn what_can_not_be_rendered_is_refused_with_its_place() {
        for (json, needle) in [
            (r#"[{"role":"critic","content":"x"}]"#, "messages[0]: there is no role"),
            (r#"[{"role":"user","content":[{"type":"image_url"}]}]"#, "image_url"),
            (r#"[{"role":"assistant","content":null,"tool_calls":[{}]}]"#, "calls tools"),
            (r#"[{"role":"user","content":3}]"#, "must be a string"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(needle), "{json}: {error}");
        }
    }
}
