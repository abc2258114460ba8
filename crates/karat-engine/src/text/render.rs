//! From a sample to text, in the one way that its model was trained on.

use std::{borrow::Cow, ops::Range, path::Path};

use karat_rules::domain::{Conversation, Message, RenderedText, dialogue_text};

use super::{
    Render, TextConfig, TextError,
    control::ControlTokens,
    template::{SpecialTokens, Template},
};

/// Text that is ready for the tokenizer.
#[derive(Debug, PartialEq)]
pub(super) enum Rendered<'a> {
    /// Two texts that the tokenizer joins.
    Pair { prompt: String, response: Cow<'a, str> },
    /// One text, and where in it the response stands.
    Single {
        text: Cow<'a, str>,
        response: ResponseSpan,
        /// Where control tokens stand that are letters.
        literal: Vec<Range<usize>>,
        /// The first byte before the response that must stay when the text is too long, if any.
        kept: Option<usize>,
    },
}

impl<'a> Rendered<'a> {
    /// The length of what is tokenised.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Pair { prompt, response } => prompt.len() + response.len(),
            Self::Single { text, .. } => text.len(),
        }
    }

    /// One text of which anything before the response may be cut.
    fn single(text: Cow<'a, str>, response: ResponseSpan) -> Self {
        Self::Single { text, response, literal: Vec::new(), kept: None }
    }

    /// The same text with control tokens at those places that are letters.
    fn with_literal(self, places: Vec<Range<usize>>) -> Self {
        match self {
            Self::Single { text, response, kept, .. } => Self::Single { text, response, literal: places, kept },
            pair @ Self::Pair { .. } => pair,
        }
    }

    /// The text of the response; all the text where the two can't be told apart.
    pub(super) fn response(&self) -> &str {
        match self {
            Self::Pair { response, .. } => response,
            Self::Single { text, response: ResponseSpan::At { bytes, .. }, .. } => &text[bytes.clone()],
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
    At {
        bytes: Range<usize>,
        /// How many characters of white space the template left out at the response's start.
        skipped: usize,
    },
    /// The template changed the response so that it can't be found: it must not be cut, and none of its tokens read.
    Changed {
        /// What the response, or its beginning, was.
        said: String,
    },
}

impl ResponseSpan {
    fn at(bytes: Range<usize>) -> Self {
        Self::At { bytes, skipped: 0 }
    }

    /// Of a response, perhaps long, that will be named in a message.
    fn changed(said: &str) -> Self {
        Self::Changed { said: said.chars().take(160).collect() }
    }
}

/// Renders samples the way the manifest says.
#[derive(Debug)]
pub(super) enum Renderer {
    Pair,
    /// What control tokens in a response are.
    Raw(ControlTokens),
    Template(Box<Template>),
}

impl Renderer {
    pub(super) fn load(
        folder: &Path,
        config: &TextConfig,
        tokens: SpecialTokens,
        control: ControlTokens,
    ) -> Result<Self, TextError> {
        let date = config.date;
        let template = |template: Template| Self::Template(Box::new(template.with_control(control.clone())));
        Ok(match &config.render {
            Render::Pair | Render::Raw if date.is_some() => {
                return Err(TextError::Config {
                    key: "text.date",
                    reason: "only a template can ask for a date, and text.render names none; leave it out".to_owned(),
                });
            }
            Render::Pair => Self::Pair,
            Render::Raw => Self::Raw(control),
            Render::ChatTemplate => template(Template::of_model(folder, config, tokens)?),
            Render::Jinja(source) => template(Template::new(source, tokens, date)?),
            Render::JinjaFile(path) => template(Template::from_file(&folder.join(path), tokens, date)?),
        })
    }

    pub(super) fn render<'a>(&self, conversation: &'a Conversation) -> Result<Rendered<'a>, TextError> {
        match self {
            Self::Pair => Ok(Rendered::Pair {
                prompt: dialogue_text(conversation.context()),
                response: conversation.response().into(),
            }),
            Self::Raw(_) if has_prompt(conversation) => Err(TextError::Template(
                "this model scores the response alone (text.render is \"raw\"); send an empty prompt, or the text as \
                 {\"text\": …}; if it reads conversations, lay its chat_template.jinja beside it or write text.render"
                    .to_owned(),
            )),
            Self::Raw(control) => {
                let text = conversation.response();
                let rendered = Rendered::single(text.into(), ResponseSpan::at(0..text.len()));
                Ok(rendered.with_literal(control.spelled(text)?))
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
        let literal = template.literal(turns, false, &text)?;
        Ok(Rendered::Single { text: text.into(), response, literal, kept })
    }

    /// Renders turns some of which, `answers`, say the same, and finds those; the turns from `kept` on must stay whole.
    pub(super) fn answered(
        &self,
        turns: &[Message],
        answers: &[usize],
        kept: usize,
    ) -> Result<(Rendered<'static>, Vec<Range<usize>>), TextError> {
        let template = self.template()?;
        let text = template.render(turns, false)?;
        let answer = answers.first().map_or("", |first| turns[*first].content.as_str());
        let mut others = turns.to_vec();
        answers.iter().for_each(|turn| STAND_IN.clone_into(&mut others[*turn].content));
        let other = template.render(&others, false)?;
        let mut places = Vec::with_capacity(answers.len());
        let mut end = 0;
        for before in other.split(STAND_IN).take(answers.len()) {
            let start = end + before.len();
            end = start + answer.len();
            places.push(start..end);
        }
        if other.matches(STAND_IN).count() != answers.len() || other.replace(STAND_IN, answer) != text {
            return Err(TextError::Changed(answer.to_owned()));
        }
        let start = start_of(&text, turns, kept, |turns| template.render(turns, false).ok());
        let response = ResponseSpan::at(start..text.len());
        let literal = template.literal(turns, false, &text)?;
        Ok((Rendered::single(text.into(), response).with_literal(literal), places))
    }

    /// Renders turns up to where the assistant speaks next. The turns from `kept` on, if any, take the response's place.
    pub(super) fn opening(&self, turns: &[Message], kept: usize) -> Result<Rendered<'static>, TextError> {
        let template = self.template()?;
        let render = |turns: &[Message]| template.render(turns, true);
        let text = render(turns)?;
        let response = match kept < turns.len() {
            true => ResponseSpan::at(start_of(&text, turns, kept, |turns| render(turns).ok())..text.len()),
            false => ResponseSpan::CallersText,
        };
        let literal = template.literal(turns, true, &text)?;
        Ok(Rendered::single(text.into(), response).with_literal(literal))
    }

    fn template(&self) -> Result<&Template, TextError> {
        match self {
            Self::Template(template) => Ok(template),
            Self::Pair | Self::Raw(_) => Err(TextError::Config {
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
                Rendered::single(text.text().into(), ResponseSpan::at(prompt.len()..text.text().len()))
            }
            _ => Rendered::single(text.text().into(), ResponseSpan::CallersText),
        }
    }
}

fn has_prompt(conversation: &Conversation) -> bool {
    conversation.context().iter().any(|message| !message.content.is_empty())
}

/// A response that no template writes or changes.
const STAND_IN: &str = "\u{e000}\u{e001}\u{e000}";

/// The byte from which a turn and all after it stand; with the first turn goes what the template writes before it. A turn
/// that can't be found may begin anywhere.
fn start_of(text: &str, turns: &[Message], turn: usize, render: impl FnOnce(&[Message]) -> Option<String>) -> usize {
    match turn {
        0 => 0,
        _ => match find_turn(text, turns, turn, render) {
            ResponseSpan::At { bytes, .. } => bytes.start,
            ResponseSpan::CallersText | ResponseSpan::Changed { .. } => 0,
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
    let mut others = turns.to_vec();
    let Some(other) = others.get_mut(turn) else { return ResponseSpan::changed("") };
    let said = std::mem::replace(&mut other.content, STAND_IN.to_owned());
    let found = render(&others).and_then(|other| find_response(text, &said, &other));
    found.unwrap_or_else(|| ResponseSpan::changed(&said))
}

/// Finds the response in what a template made of the conversation; `other` is what it makes of [`STAND_IN`] instead.
///
/// A response may stand in the prompt or in the template's own words as well, and templates often trim it. So what
/// counts is what takes the stand-in's place, and that is the response if it differs from it by white space around it at
/// most. Some templates write other words around some responses, such as a heading where the response holds none: then
/// the response is what stands in the text once, and not in `other`.
fn find_response(text: &str, response: &str, other: &str) -> Option<ResponseSpan> {
    in_place(text, response, other).or_else(|| only_place(text, response, other))
}

fn in_place(text: &str, response: &str, other: &str) -> Option<ResponseSpan> {
    let (before, after) = other.split_once(STAND_IN)?;
    let written = text.strip_prefix(before)?.strip_suffix(after)?;
    if written.trim() != response.trim() {
        return None;
    }
    // White space that the response doesn't have there is the template's own.
    let kept = if response.contains(written) { written } else { written.trim() };
    let start = before.len() + written.find(kept)?;
    Some(ResponseSpan::At { bytes: start..start + kept.len(), skipped: skipped(response, kept) })
}

fn only_place(text: &str, response: &str, other: &str) -> Option<ResponseSpan> {
    let trimmed = [response, response.trim(), response.trim_start(), response.trim_end()];
    let (start, found) = trimmed.into_iter().find_map(|candidate| {
        let mut places = text.match_indices(candidate);
        let (start, found) = places.next()?;
        (places.next().is_none() && !candidate.is_empty() && !other.contains(candidate)).then_some((start, found))
    })?;
    Some(ResponseSpan::At { bytes: start..start + found.len(), skipped: skipped(response, found) })
}

/// How many characters stand before `kept`, which is the response without white space around it.
fn skipped(response: &str, kept: &str) -> usize {
    response.find(kept).map_or(0, |start| response[..start].chars().count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a template makes of a response, with a prompt that says yes and words of its own.
    fn rendered(response: &str) -> String {
        format!("say yes|{}|[yes]", response.trim())
    }

    fn found(response: &str) -> Option<ResponseSpan> {
        find_response(&rendered(response), response, &rendered(STAND_IN))
    }

    #[test]
    fn the_response_is_found_whatever_the_prompt_and_the_template_say() {
        assert_eq!(found("no"), Some(ResponseSpan::at(8..10)));
        let yes = ResponseSpan::At { bytes: 8..11, skipped: 1 };
        assert_eq!(found(" yes\n"), Some(yes), "neither the prompt's yes nor the template's");
    }

    #[test]
    fn a_response_that_a_template_rewrites_is_not_guessed() {
        let shout = |response: &str| format!("say yes|{}|", response.to_uppercase());
        assert_eq!(find_response(&shout("yes"), "yes", &shout(STAND_IN)), None);
        // "|" stands in what the template writes itself.
        assert_eq!(find_response("say|YES", "say", "say|\u{e000}\u{e001}\u{e000}"), None);
        assert_eq!(find_response("yes|yes", "yes", "the same whatever comes"), None);
        assert_eq!(find_response("no|", "<think>yes</think>no", "\u{e000}\u{e001}\u{e000}|"), None);
    }

    /// Templates that write an empty thought where the response holds none.
    #[test]
    fn a_template_may_write_other_words_around_some_responses() {
        let thought = "<think>why</think>so";
        let found = find_response(&format!("a {thought}."), thought, &format!("a <think></think>{STAND_IN}."));
        assert_eq!(found, Some(ResponseSpan::at(2..2 + thought.len())));
    }

    fn template(source: &str) -> Renderer {
        Renderer::Template(Box::new(Template::new(source, SpecialTokens::default(), None).unwrap()))
    }

    const TEMPLATES: [&str; 8] = [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
        "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}",
        "{% for m in messages %}{{ m.content.lstrip('\n') }} {% endfor %}",
        "{% for m in messages %}{{ m.content.rstrip() }} {{ m.content | length }}{% endfor %}",
        "{{ messages[-1].content | trim }} {% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages %} {{ m.content.split('b')[-1] }}\n{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}a{% endfor %}",
        "{% filter trim %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfilter %}",
    ];

    proptest! {
        /// Of these letters, many responses stand in their prompts, and in the template's words.
        #[test]
        fn what_is_found_is_the_response(
            prompt in "[ab :\n]{1,8}", around in ("[ \n]{0,2}", "[ \n]{0,2}"), middle in "[ab][ab \n]{0,2}[ab]?",
        ) {
            let response = format!("{}{middle}{}", around.0, around.1);
            let message = |role, content: &str| Message { role, content: content.to_owned() };
            let turns = [message(karat_rules::domain::Role::User, &prompt), message(karat_rules::domain::Role::Assistant, &response)];
            for (number, source) in TEMPLATES.into_iter().enumerate() {
                let rendered = template(source).last_turn(&turns, 1).unwrap();
                let Rendered::Single { text, response: span, .. } = rendered else { panic!("{rendered:?}") };
                let ResponseSpan::At { bytes, skipped } = span else {
                    prop_assert!(number >= 3, "{source} {turns:?} {text:?}");
                    continue;
                };
                let found = &text[bytes.clone()];
                prop_assert_eq!(found.trim(), response.trim());
                let rest: String = response.chars().skip(skipped).collect();
                prop_assert!(rest.starts_with(found), "{} {:?} {}", source, turns, skipped);
                // The response is the last thing said, and the template says nothing with white space in it after.
                if number < 3 || number == 7 {
                    prop_assert!(text[bytes.end..].trim().is_empty(), "{source} {turns:?} {text:?}");
                }
            }
        }
    }
}
