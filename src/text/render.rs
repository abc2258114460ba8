//! From a sample to text, in the one way that its model was trained on.

use std::{borrow::Cow, ops::Range, path::Path};

use super::{
    Render, TextConfig, TextError,
    template::{SpecialTokens, Template},
};
use crate::domain::{Conversation, Message, RenderedText, dialogue_text};

/// Text that is ready for the tokenizer.
#[derive(Debug, PartialEq)]
pub(super) enum Rendered<'a> {
    /// Two texts that the tokenizer joins.
    Pair { prompt: String, response: Cow<'a, str> },
    /// One text, and where in it the response stands.
    Single {
        text: Cow<'a, str>,
        response: ResponseSpan,
        /// The first byte before the response that must stay when the text is too long, if any.
        kept: Option<usize>,
    },
}

impl<'a> Rendered<'a> {
    /// One text of which anything before the response may be cut.
    fn single(text: Cow<'a, str>, response: ResponseSpan) -> Self {
        Self::Single { text, response, kept: None }
    }

    /// The text of the response; all the text where the two can't be told apart.
    pub(super) fn response(&self) -> &str {
        match self {
            Self::Pair { response, .. } => response,
            Self::Single { text, response: ResponseSpan::Bytes(bytes), .. } => &text[bytes.clone()],
            Self::Single { text, .. } => text,
        }
    }
}

/// Where the response stands in a rendered text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResponseSpan {
    /// The caller rendered the text: there is no telling, and the caller answers for any cut.
    CallersText,
    /// At these bytes.
    Bytes(Range<usize>),
    /// The template changed the response so that it can't be found: it must not be cut.
    Unknown,
}

/// Renders samples the way the manifest says.
#[derive(Debug)]
pub(super) enum Renderer {
    Pair,
    Raw,
    Template(Box<Template>),
}

impl Renderer {
    pub(super) fn load(folder: &Path, config: &TextConfig, tokens: SpecialTokens) -> Result<Self, TextError> {
        Ok(match &config.render {
            Render::Pair => Self::Pair,
            Render::Raw => Self::Raw,
            Render::ChatTemplate => Self::Template(Box::new(Template::of_model(folder, config, tokens)?)),
            Render::Jinja(source) => Self::Template(Box::new(Template::new(source.clone(), tokens)?)),
            Render::JinjaFile(path) => Self::Template(Box::new(Template::from_file(&folder.join(path), tokens)?)),
        })
    }

    pub(super) fn render<'a>(&self, conversation: &'a Conversation) -> Result<Rendered<'a>, TextError> {
        match self {
            Self::Pair => Ok(Rendered::Pair {
                prompt: dialogue_text(conversation.context()),
                response: conversation.response().into(),
            }),
            Self::Raw if has_prompt(conversation) => Err(TextError::Template(
                "this model scores the response alone (text.render is \"raw\"); send an empty prompt, or the text as \
                 {\"text\": …}"
                    .to_owned(),
            )),
            Self::Raw => {
                let text = conversation.response();
                Ok(Rendered::single(text.into(), ResponseSpan::Bytes(0..text.len())))
            }
            Self::Template(_) => {
                let turns = conversation.messages();
                self.last_turn(turns, turns.len() - 1)
            }
        }
    }
}

impl Renderer {
    /// Renders turns of which the last is anyone's, and finds what it says; the turns from `kept` on must stay whole.
    pub(super) fn last_turn(&self, turns: &[Message], kept: usize) -> Result<Rendered<'static>, TextError> {
        let template = self.template()?;
        let render = |turns: &[Message]| template.render(turns, false);
        let text = render(turns)?;
        let last = turns.len().saturating_sub(1);
        let response = find_turn(&text, turns, last, |turns| render(turns).ok());
        let kept = (kept < last).then(|| start_of(&text, turns, kept, |turns| render(turns).ok()));
        Ok(Rendered::Single { text: text.into(), response, kept })
    }

    /// Renders turns up to where the assistant speaks next. The turns from `kept` on, if any, take the response's place.
    pub(super) fn opening(&self, turns: &[Message], kept: usize) -> Result<Rendered<'static>, TextError> {
        let template = self.template()?;
        let render = |turns: &[Message]| template.render(turns, true);
        let text = render(turns)?;
        let response = match kept < turns.len() {
            true => ResponseSpan::Bytes(start_of(&text, turns, kept, |turns| render(turns).ok())..text.len()),
            false => ResponseSpan::CallersText,
        };
        Ok(Rendered::single(text.into(), response))
    }

    fn template(&self) -> Result<&Template, TextError> {
        match self {
            Self::Template(template) => Ok(template),
            Self::Pair | Self::Raw => Err(TextError::Config {
                key: "text.render",
                reason: "only a template can render turns that a language model adds to or goes on with; write \
                         \"chat_template\" or a Jinja template"
                    .to_owned(),
            }),
        }
    }

    /// A model of sentence pairs gets the two halves of a text whose prompt is known: as one text they would look like
    /// nothing that it was trained on.
    pub(super) fn callers_text<'a>(&self, text: &'a RenderedText) -> Rendered<'a> {
        match (self, text.split()) {
            (Self::Pair, Some((prompt, response))) => {
                Rendered::Pair { prompt: prompt.to_owned(), response: response.into() }
            }
            (Self::Template(_), Some((prompt, _))) => {
                Rendered::single(text.text().into(), ResponseSpan::Bytes(prompt.len()..text.text().len()))
            }
            _ => Rendered::single(text.text().into(), ResponseSpan::CallersText),
        }
    }
}

fn has_prompt(conversation: &Conversation) -> bool {
    conversation.context().iter().any(|message| !message.content.is_empty())
}

/// A response that no template writes by itself.
const STAND_IN: &str = "\u{e000}response\u{e000}";

/// The byte from which a turn and all after it stand; with the first turn goes what the template writes before it. A turn
/// that can't be found may begin anywhere.
fn start_of(text: &str, turns: &[Message], turn: usize, render: impl FnOnce(&[Message]) -> Option<String>) -> usize {
    match turn {
        0 => 0,
        _ => match find_turn(text, turns, turn, render) {
            ResponseSpan::Bytes(bytes) => bytes.start,
            ResponseSpan::CallersText | ResponseSpan::Unknown => 0,
        },
    }
}

/// Finds what a turn says in what a template made of all turns.
fn find_turn(
    text: &str,
    turns: &[Message],
    turn: usize,
    render: impl FnOnce(&[Message]) -> Option<String>,
) -> ResponseSpan {
    let Some(said) = turns.get(turn) else { return ResponseSpan::Unknown };
    let others = || turns.iter().enumerate().filter(|(other, _)| *other != turn).map(|(_, other)| other);
    let elsewhere = |found: &str| others().any(|other| other.content.contains(found));
    find_response(text, &said.content, elsewhere, |other| {
        let mut turns = turns.to_vec();
        other.clone_into(&mut turns.get_mut(turn)?.content);
        render(&turns)
    })
}

/// Finds the response in what a template made of the conversation; templates often trim it.
///
/// A short response may stand in the prompt (`elsewhere`) or in the template's own words as well: then `render` tells,
/// with another response, what the template puts before and after it.
fn find_response(
    text: &str,
    response: &str,
    elsewhere: impl FnOnce(&str) -> bool,
    render: impl FnOnce(&str) -> Option<String>,
) -> ResponseSpan {
    let Some(found) = [response, response.trim()].into_iter().find(|candidate| text.contains(candidate)) else {
        return ResponseSpan::Unknown;
    };
    let mut places = text.match_indices(found).map(|(start, _)| start);
    let place = match (places.next(), places.next()) {
        // A template may have changed the response and left the prompt.
        (Some(only), None) if !elsewhere(found) => Some(only),
        _ => render(STAND_IN).and_then(|other| {
            let (before, after) = other.split_once(STAND_IN)?;
            let written = text.strip_prefix(before)?.strip_suffix(after)?;
            written.find(found).map(|start| before.len() + start)
        }),
    };
    place.map_or(ResponseSpan::Unknown, |start| ResponseSpan::Bytes(start..start + found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a template makes of a response, with a prompt that says yes and words of its own.
    fn rendered(response: &str) -> String {
        format!("say yes|{}|[yes]", response.trim())
    }

    fn found(response: &str) -> ResponseSpan {
        find_response(&rendered(response), response, |_| true, |other| Some(rendered(other)))
    }

    #[test]
    fn the_response_is_found_whatever_the_prompt_and_the_template_say() {
        assert_eq!(found("no"), ResponseSpan::Bytes(8..10));
        assert_eq!(found(" yes\n"), ResponseSpan::Bytes(8..11), "neither the prompt's yes nor the template's");
    }

    #[test]
    fn a_response_that_a_template_rewrites_is_not_guessed() {
        let shout = |response: &str| format!("say yes|{}|", response.to_uppercase());
        for (text, elsewhere) in [("say|YES|".to_owned(), false), (shout("yes"), true)] {
            let found = find_response(&text, "yes", |_| elsewhere, |other| Some(shout(other)));
            assert_eq!(found, ResponseSpan::Unknown, "{text}");
        }
        let same = |_: &str| Some("the same whatever comes".to_owned());
        assert_eq!(find_response("yes|yes", "yes", |_| false, same), ResponseSpan::Unknown);
    }
}
