//! From text in the policy's chat template back to messages.
//!
//! Trainers send what the policy saw: text in the policy's template. A reward model that was trained with another
//! template scores such text wrongly, and the score looks as good as any. Where a manifest names the policy's template,
//! text is parsed by the template's [`Markers`] and rendered anew; text that doesn't parse is refused, never guessed at.

use karat_rules::domain::{Conversation, Message, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TextError;

/// The chat template in which rendered text arrives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyTemplate {
    /// `<|im_start|>user … <|im_end|>`, as Qwen and many others write.
    Chatml,
    /// `<|start_header_id|>user<|end_header_id|> … <|eot_id|>`, as Llama 3 writes.
    Llama3,
    /// `[INST] … [/INST] … </s>`, as Mistral writes. A system prompt stays a part of the first user turn.
    Mistral,
    /// `<start_of_turn>user … <end_of_turn>`, as Gemma writes.
    Gemma,
    /// `<|user|> … </s>`, as Zephyr writes.
    Zephyr,
    /// Any other template, by what stands around its turns.
    Markers(Box<Markers>),
}

/// What stands around the turns of a chat template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Markers {
    /// Around what the user says.
    pub user: TurnMarkers,
    /// Around what the assistant says. Its start may be empty where an answer follows the user's turn without a mark.
    pub assistant: TurnMarkers,
    /// Around the system prompt, if the template has one.
    #[serde(default)]
    pub system: Option<TurnMarkers>,
    /// Around the result of a tool, if the template has one.
    #[serde(default)]
    pub tool: Option<TurnMarkers>,
    /// What may stand between turns and says nothing: the tokens that begin and end a text, and padding.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Whether white space around a turn's content belongs to the template.
    #[serde(default)]
    pub trim: bool,
}

/// What stands before and after one turn.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TurnMarkers {
    /// What the turn begins with, line breaks included.
    pub start: String,
    /// What the turn ends with. White space between turns is ignored. The last turn's may be missing: answers that were
    /// cut off have none.
    pub end: String,
}

impl TurnMarkers {
    fn new(start: &str, end: &str) -> Self {
        Self { start: start.to_owned(), end: end.to_owned() }
    }
}

impl PolicyTemplate {
    /// The template's markers, checked.
    pub(super) fn markers(&self) -> Result<Markers, TextError> {
        let ignore = |tokens: &[&str]| tokens.iter().map(|token| (*token).to_owned()).collect();
        let headed = |start: &dyn Fn(&str) -> String, assistant: &str, end: &str, tokens: &[&str], trim| Markers {
            user: TurnMarkers::new(&start("user"), end),
            assistant: TurnMarkers::new(&start(assistant), end),
            system: Some(TurnMarkers::new(&start("system"), end)),
            tool: Some(TurnMarkers::new(&start("tool"), end)),
            ignore: ignore(tokens),
            trim,
        };
        Ok(match self {
            Self::Chatml => headed(
                &|role| format!("<|im_start|>{role}\n"),
                "assistant",
                "<|im_end|>",
                &["<|endoftext|>", "<s>", "</s>"],
                false,
            ),
            Self::Llama3 => headed(
                &|role| format!("<|start_header_id|>{role}<|end_header_id|>\n\n"),
                "assistant",
                "<|eot_id|>",
                &["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"],
                true,
            ),
            Self::Gemma => headed(
                &|role| format!("<start_of_turn>{role}\n"),
                "model",
                "<end_of_turn>",
                &["<bos>", "<eos>", "<pad>"],
                true,
            ),
            Self::Zephyr => {
                headed(&|role| format!("<|{role}|>\n"), "assistant", "</s>", &["<s>", "</s>", "<unk>"], false)
            }
            Self::Mistral => Markers {
                user: TurnMarkers::new("[INST]", "[/INST]"),
                assistant: TurnMarkers::new("", "</s>"),
                system: None,
                tool: None,
                ignore: ignore(&["<s>", "</s>", "<pad>"]),
                trim: true,
            },
            Self::Markers(markers) => return Markers::clone(markers).checked(),
        })
    }
}

impl Markers {
    fn checked(self) -> Result<Self, TextError> {
        let refuse =
            |reason: &str| Err(TextError::Config { key: "text.retemplate.markers", reason: reason.to_owned() });
        if self.roles().any(|(_, turn)| turn.end.is_empty()) || self.ignore.iter().any(String::is_empty) {
            return refuse("an end, or a text to ignore, is empty; write what the template writes there");
        }
        if self.roles().any(|(role, turn)| turn.start.is_empty() && role != Role::Assistant) {
            return refuse("only the assistant's start may be empty; write what the others' turns begin with");
        }
        Ok(self)
    }

    fn roles(&self) -> impl Iterator<Item = (Role, &TurnMarkers)> {
        // The assistant's comes last: its start may be empty, and would then match everything.
        [
            (Role::System, self.system.as_ref()),
            (Role::User, Some(&self.user)),
            (Role::Tool, self.tool.as_ref()),
            (Role::Assistant, Some(&self.assistant)),
        ]
        .into_iter()
        .filter_map(|(role, turn)| Some((role, turn?)))
    }

    /// Takes `text` apart into its turns.
    pub(super) fn parse(&self, text: &str) -> Result<Conversation, TextError> {
        let mut messages = Vec::new();
        let mut rest = self.skip(text);
        while !rest.is_empty() {
            // An answer without a mark of its own must follow what it answers.
            let answers = messages.last().is_some_and(|message: &Message| message.role != Role::Assistant);
            let begun = self
                .roles()
                .filter(|(_, turn)| answers || !turn.start.is_empty())
                .find_map(|(role, turn)| rest.strip_prefix(turn.start.as_str()).map(|on| (role, turn, on)));
            let Some((role, turn, content)) = begun else {
                return Err(TextError::ParseTemplate(format!("no turn begins at {:?}", excerpt(rest))));
            };
            let (content, after) = match content.split_once(turn.end.as_str()) {
                Some((content, after)) => (content, after),
                None if role == Role::Assistant => (self.without_padding(content), ""),
                None => {
                    return Err(TextError::ParseTemplate(format!(
                        "the {role}'s turn at {:?} has no end",
                        excerpt(rest)
                    )));
                }
            };
            let nested =
                |(_, turn): &(Role, &TurnMarkers)| !turn.start.is_empty() && content.contains(turn.start.as_str());
            if let Some((inner, _)) = self.roles().find(nested) {
                return Err(TextError::ParseTemplate(format!(
                    "the {inner}'s turn begins within the {role}'s at {:?}",
                    excerpt(rest)
                )));
            }
            let content = if self.trim { content.trim() } else { content };
            messages.push(Message { role, content: content.to_owned() });
            rest = self.skip(after);
        }
        Conversation::new(messages).map_err(|error| TextError::ParseTemplate(error.to_string()))
    }

    /// What follows white space and ignored tokens.
    fn skip<'a>(&self, text: &'a str) -> &'a str {
        let mut rest = text.trim_start();
        while let Some(next) = self.ignore.iter().find_map(|token| rest.strip_prefix(token.as_str())) {
            rest = next.trim_start();
        }
        rest
    }

    /// The end of an answer that was cut off, without the tokens that fill up the row.
    fn without_padding<'a>(&self, text: &'a str) -> &'a str {
        let mut rest = text;
        while let Some(shorter) = self.ignore.iter().find_map(|token| rest.strip_suffix(token.as_str())) {
            rest = shorter;
        }
        rest
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(template: &PolicyTemplate, text: &str) -> Result<Vec<(Role, String)>, String> {
        let parsed = template.markers().unwrap().parse(text).map_err(|error| error.to_string())?;
        Ok(parsed.messages().iter().map(|message| (message.role, message.content.clone())).collect())
    }

    fn turns(turns: &[(Role, &str)]) -> Result<Vec<(Role, String)>, String> {
        Ok(turns.iter().map(|(role, content)| (*role, (*content).to_owned())).collect())
    }

    #[test]
    fn named_templates_are_parsed_as_their_models_write_them() {
        use Role::{Assistant, System, User};
        let cases = [
            (
                PolicyTemplate::Chatml,
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n\
                 So.\n<|im_end|>\n<|endoftext|><|endoftext|>",
                turns(&[(System, "Be brief."), (User, "Why?"), (Assistant, "So.\n")]),
            ),
            (
                PolicyTemplate::Llama3,
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant\
                 <|end_header_id|>\n\nSo.<|eot_id|>",
                turns(&[(User, "Why?"), (Assistant, "So.")]),
            ),
            (
                PolicyTemplate::Mistral,
                "<s>[INST] Why? [/INST] So.</s>[INST] And? [/INST] Because.</s>",
                turns(&[(User, "Why?"), (Assistant, "So."), (User, "And?"), (Assistant, "Because.")]),
            ),
            (
                PolicyTemplate::Gemma,
                "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\nSo.<end_of_turn>\n",
                turns(&[(User, "Why?"), (Assistant, "So.")]),
            ),
            (
                PolicyTemplate::Zephyr,
                "<|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>\n",
                turns(&[(User, "Why?"), (Assistant, "So.")]),
            ),
        ];
        for (template, text, expected) in cases {
            assert_eq!(parse(&template, text), expected, "{template:?}");
        }
    }

    #[test]
    fn an_answer_that_was_cut_off_counts() {
        let text = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause the<|endoftext|><|endoftext|>";
        assert_eq!(
            parse(&PolicyTemplate::Chatml, text),
            turns(&[(Role::User, "Why?"), (Role::Assistant, "Because the")])
        );
    }

    #[test]
    fn what_is_in_no_template_is_refused() {
        let chatml = PolicyTemplate::Chatml;
        for (text, needle) in [
            ("Why? So.", "no turn begins"),
            ("<|im_start|>user\nWhy?<|im_end|>\nSo.", "no turn begins at \"So.\""),
            ("<|im_start|>user\nWhy?<|im_end|>", "end with the \"assistant\""),
            ("<|im_start|>user\nWhy?", "has no end"),
            ("<|im_start|>user\nWhy?\n<|im_start|>assistant\nSo.<|im_end|>", "begins within the user's"),
            ("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n <|im_end|>", "the response is empty"),
            ("", "empty"),
        ] {
            let error = parse(&chatml, text).unwrap_err();
            assert!(error.contains(needle), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_answer_without_a_mark_follows_a_question() {
        for text in ["So.", "<s>[INST] Why? [/INST] So.</s> And then?"] {
            assert!(parse(&PolicyTemplate::Mistral, text).unwrap_err().contains("no turn begins"), "{text:?}");
        }
    }

    #[test]
    fn declared_markers_are_checked_when_the_model_is_loaded() {
        let markers = |start: &str, end: &str| {
            PolicyTemplate::Markers(Box::new(Markers {
                user: TurnMarkers::new(start, end),
                assistant: TurnMarkers::new("", "\n"),
                system: None,
                tool: None,
                ignore: Vec::new(),
                trim: true,
            }))
        };
        assert_eq!(
            parse(&markers("Q:", "A:"), "Q: Why? A: So."),
            turns(&[(Role::User, "Why?"), (Role::Assistant, "So.")])
        );
        assert!(markers("Q:", "").markers().is_err());
        assert!(markers("", "A:").markers().is_err());
    }
}
