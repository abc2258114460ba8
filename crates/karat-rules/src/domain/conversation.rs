//! What is scored: a response in its context. Every API dialect turns its own request into a [`Sample`].

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Picture;

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions that stand above the dialogue.
    System,
    /// The person who asks.
    User,
    /// The model whose answers are scored.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The role as chat templates spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// A dialogue that ends with the response to be scored.
///
/// Invariants: the last message is the assistant's and holds more than white space.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conversation {
    messages: Vec<Message>,
}

/// Why messages are not a scorable conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// There is nothing to score.
    #[error("the list of messages is empty; send at least the assistant's response")]
    Empty,
    /// The last turn is not the response.
    #[error("the last message has the role \"{0}\"; end with the \"assistant\" message whose response is to be scored")]
    LastNotAssistant(Role),
    /// The response says nothing.
    #[error("the response is empty; leave the candidate out, or send the text that is to be scored")]
    EmptyResponse,
    /// The text says nothing.
    #[error("the text is empty; leave the input out, or send the text that is to be scored")]
    EmptyText,
    /// There are no token ids.
    #[error("the list of token ids is empty; leave the input out, or send the tokens that are to be scored")]
    NoTokens,
}

impl Conversation {
    /// Checks that `messages` end with a response.
    ///
    /// # Errors
    /// When there are no messages, the last is not the assistant's, or the response is blank.
    pub fn new(messages: Vec<Message>) -> Result<Self, ConversationError> {
        let last = messages.last().ok_or(ConversationError::Empty)?;
        if last.role != Role::Assistant {
            return Err(ConversationError::LastNotAssistant(last.role));
        }
        if last.content.trim().is_empty() {
            return Err(ConversationError::EmptyResponse);
        }
        Ok(Self { messages })
    }

    /// All turns, the response last.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The turns before the response; empty when a response came without a prompt.
    #[must_use]
    pub fn context(&self) -> &[Message] {
        &self.messages[..self.messages.len() - 1]
    }

    /// The response that is scored.
    #[must_use]
    pub fn response(&self) -> &str {
        &self.messages[self.messages.len() - 1].content
    }

    /// The same turns with another response.
    ///
    /// # Errors
    /// When the response is blank.
    pub fn with_response(&self, response: String) -> Result<Self, ConversationError> {
        let messages = self.context().iter().cloned();
        Self::new(messages.chain([Message { role: Role::Assistant, content: response }]).collect())
    }
}

/// Text that the caller rendered, the response at its end.
///
/// Invariants: the text is not blank; the prompt is a part of it that leaves a response that is not blank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RenderedText {
    text: String,
    prompt_bytes: Option<usize>,
}

impl RenderedText {
    /// Takes text of which nobody says where the response begins.
    ///
    /// # Errors
    /// When the text is blank.
    pub fn new(text: String) -> Result<Self, ConversationError> {
        if text.trim().is_empty() {
            return Err(ConversationError::EmptyText);
        }
        Ok(Self { text, prompt_bytes: None })
    }

    /// Says that the response begins where `prompt` ends. Ignored when the text doesn't begin with a prompt, or nothing
    /// follows it.
    #[must_use]
    pub fn with_prompt(mut self, prompt: &str) -> Self {
        let response = self.text.strip_prefix(prompt).filter(|response| !response.trim().is_empty());
        self.prompt_bytes = response.filter(|_| !prompt.trim().is_empty()).map(|_| prompt.len());
        self
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text before and from the response on, if the caller told them apart.
    #[must_use]
    pub fn split(&self) -> Option<(&str, &str)> {
        self.prompt_bytes.map(|bytes| self.text.split_at(bytes))
    }
}

/// Two responses to the same turns, for models that say which of two is better.
///
/// Invariants: neither response is blank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair {
    turns: Vec<Message>,
    first: String,
    second: String,
}

impl Pair {
    /// Takes two responses to what was said before, oldest turn first.
    ///
    /// # Errors
    /// When a response is blank.
    pub fn new(turns: Vec<Message>, first: String, second: String) -> Result<Self, ConversationError> {
        if first.trim().is_empty() || second.trim().is_empty() {
            return Err(ConversationError::EmptyResponse);
        }
        Ok(Self { turns, first, second })
    }

    /// What was said before.
    #[must_use]
    pub fn turns(&self) -> &[Message] {
        &self.turns
    }

    /// The response whose preference over the other is told.
    #[must_use]
    pub fn first(&self) -> &str {
        &self.first
    }

    /// The other response.
    #[must_use]
    pub fn second(&self) -> &str {
        &self.second
    }
}

/// Turns as one text: a single prompt bare, a dialogue with its speakers named `Human:`, `Assistant:`, `System:` or
/// `Tool:` and blank lines between.
#[must_use]
pub fn dialogue_text(turns: &[Message]) -> String {
    if let [only] = turns
        && only.role == Role::User
    {
        return only.content.clone();
    }
    let speaker = |role| match role {
        Role::System => "System",
        Role::User => "Human",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
    };
    let turns: Vec<String> =
        turns.iter().map(|message| format!("{}: {}", speaker(message.role), message.content)).collect();
    turns.join("\n\n")
}

/// One thing to score.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sample {
    /// A dialogue, rendered by the model's own template.
    Conversation(Conversation),
    /// Text that was rendered already; the model's template is not applied.
    Text(RenderedText),
    /// Token ids of the model's own tokenizer, special tokens included; at least one.
    Tokens(Vec<u32>),
    /// Two responses to compare; only models that judge pairs take it.
    Pair(Pair),
    /// An image, with what it was made for; only models that see images take it.
    Picture(Picture),
}

impl Sample {
    /// A single-turn sample.
    ///
    /// # Errors
    /// When the response is blank. An empty prompt is allowed: some models score a response alone.
    pub fn from_prompt(prompt: String, response: String) -> Result<Self, ConversationError> {
        let user = Message { role: Role::User, content: prompt };
        let assistant = Message { role: Role::Assistant, content: response };
        Conversation::new(vec![user, assistant]).map(Self::Conversation)
    }

    /// The length of all its text and images, or of its token ids, in bytes: a measure of what tokenising and keeping it costs.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Conversation(conversation) => {
                conversation.messages().iter().map(|message| message.content.len()).sum()
            }
            Self::Text(text) => text.text().len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
            Self::Pair(Pair { turns, first, second }) => {
                turns.iter().map(|turn| turn.content.len()).sum::<usize>() + first.len() + second.len()
            }
            Self::Picture(picture) => picture.prompt().len() + picture.image_bytes(),
        }
    }

    /// A sample of text that was rendered already.
    ///
    /// # Errors
    /// When the text is blank.
    pub fn from_text(text: String) -> Result<Self, ConversationError> {
        RenderedText::new(text).map(Self::Text)
    }

    /// A sample of token ids.
    ///
    /// # Errors
    /// When there are none.
    pub fn from_tokens(ids: Vec<u32>) -> Result<Self, ConversationError> {
        if ids.is_empty() { Err(ConversationError::NoTokens) } else { Ok(Self::Tokens(ids)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message { role, content: content.to_owned() }
    }

    #[test]
    fn a_conversation_ends_with_a_response() {
        assert_eq!(Conversation::new(Vec::new()), Err(ConversationError::Empty));
        assert_eq!(
            Conversation::new(vec![message(Role::Assistant, "yes"), message(Role::User, "why?")]),
            Err(ConversationError::LastNotAssistant(Role::User))
        );
        assert_eq!(
            Conversation::new(vec![message(Role::User, "why?"), message(Role::Assistant, " \n")]),
            Err(ConversationError::EmptyResponse)
        );
        let conversation =
            Conversation::new(vec![message(Role::User, "why?"), message(Role::Assistant, "so")]).unwrap();
        assert_eq!(conversation.response(), "so");
        assert_eq!(conversation.context().len(), 1);
    }

    #[test]
    fn blank_text_is_refused() {
        assert_eq!(Sample::from_text("\t ".to_owned()), Err(ConversationError::EmptyText));
        assert_eq!(Sample::from_tokens(Vec::new()), Err(ConversationError::NoTokens));
    }

    #[test]
    fn a_single_prompt_is_bare_and_a_dialogue_names_its_speakers() {
        assert_eq!(dialogue_text(&[message(Role::User, "Why?")]), "Why?");
        assert_eq!(dialogue_text(&[]), "");
        assert_eq!(
            dialogue_text(&[
                message(Role::System, "Be brief."),
                message(Role::User, "Hi"),
                message(Role::Assistant, "Hello"),
                message(Role::User, "Why?"),
            ]),
            "System: Be brief.\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?"
        );
    }

    #[test]
    fn a_prompt_counts_only_where_a_response_follows_it() {
        let split = |prompt: &str| RenderedText::new("why? so".to_owned()).unwrap().with_prompt(prompt);
        assert_eq!(split("why?").split(), Some(("why?", " so")));
        for prompt in ["who?", "why? so", "", "why? so long"] {
            assert_eq!(split(prompt).split(), None, "{prompt:?}");
        }
    }
}
