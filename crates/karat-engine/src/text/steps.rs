//! How the steps of a response become tokens, and at which of them each is read.

use std::ops::Range;

use karat_rules::domain::{Conversation, Message, Role};
use tokenizers::{Encoding, Tokenizer};

use super::{
    Render, StepForm, TextConfig, TextError, TextOptions, TextPipeline,
    render::{Rendered, ResponseSpan},
    truncate::Tokens,
    word::{is_unknown, one_token},
};

/// How a model's steps are written.
#[derive(Debug)]
pub(super) struct Steps {
    form: Form,
    /// What is written after each step; none where a model reads no steps.
    end: Option<String>,
    /// The mark as it is written, which no step may hold where it is more than a letter.
    mark_text: Option<String>,
}

#[derive(Debug)]
enum Form {
    /// The mark's token; none where a model reads no steps.
    Marked(Option<u32>),
    Apart,
    /// What the assistant answers to each step.
    Turns(String),
}

impl Steps {
    /// What the manifest says.
    ///
    /// # Errors
    /// When its keys contradict each other, or the tokenizer doesn't know the mark.
    pub(super) fn load(config: &TextConfig, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let refuse = |key: &'static str, reason: String| Err(TextError::Config { key, reason });
        let (mark, end) = (config.step_mark.as_deref(), config.step_end.as_deref());
        let form = match (&config.steps, mark, end) {
            (StepForm::Marked, Some(mark), _) => Form::Marked(Some(mark_id(tokenizer, mark, end.unwrap_or(mark))?)),
            (StepForm::Marked, None, _) => Form::Marked(None),
            (StepForm::Apart | StepForm::Turns(_), Some(mark), _) => {
                return refuse(
                    "text.step_mark",
                    format!("steps that aren't marked have no mark, and there is {mark:?}; remove the key"),
                );
            }
            (StepForm::Apart | StepForm::Turns(_), None, None | Some("")) => {
                return refuse(
                    "text.step_end",
                    "it is missing; write what steps are told apart by, such as \"\\n\"".to_owned(),
                );
            }
            (StepForm::Apart | StepForm::Turns(_), ..) if matches!(config.render, Render::Pair | Render::Raw) => {
                return refuse("text.steps", "steps that aren't marked need a template in text.render".to_owned());
            }
            (StepForm::Apart, ..) if config.special_tokens == Some(true) => {
                return refuse(
                    "text.special_tokens",
                    "steps are tokenised apart, and each would get them; write them in the template".to_owned(),
                );
            }
            (StepForm::Apart, ..) => Form::Apart,
            (StepForm::Turns(answer), ..) => Form::Turns(answer.clone()),
        };
        // One letter stands in many words that aren't marks.
        let mark_text = mark.map(str::trim).filter(|mark| mark.chars().count() > 1).map(str::to_owned);
        Ok(Self { form, end: end.or(mark).map(str::to_owned), mark_text })
    }

    /// The token at which a marked step is read.
    pub(super) fn mark(&self) -> Option<u32> {
        match self.form {
            Form::Marked(mark) => mark,
            Form::Apart | Form::Turns(_) => None,
        }
    }

    /// Whether steps, if there are any, are found by their mark, in whatever was sent.
    pub(super) fn are_marked(&self) -> bool {
        matches!(self.form, Form::Marked(_))
    }

    /// Whether each step is a turn.
    pub(super) fn are_turns(&self) -> bool {
        self.answer().is_some()
    }

    /// What is answered to each step, where each is a turn.
    pub(super) fn answer(&self) -> Option<&str> {
        match &self.form {
            Form::Turns(answer) => Some(answer),
            Form::Marked(_) | Form::Apart => None,
        }
    }

    /// A list of steps as one response; `None` where a model reads no steps.
    ///
    /// # Errors
    /// When a step holds what ends one, and would be taken for several.
    pub(super) fn join(&self, steps: &[String]) -> Result<Option<String>, TextError> {
        let Some(end) = self.end.as_deref() else { return Ok(None) };
        let signs = [Some(end), self.mark_text.as_deref()];
        let held = |step: &String| signs.into_iter().flatten().find(|sign| step.contains(sign));
        if let Some((step, sign)) = steps.iter().enumerate().find_map(|(at, step)| Some((at, held(step)?))) {
            return Err(TextError::SplitStep { step, end: sign.to_owned() });
        }
        Ok(Some(steps.iter().flat_map(|step| [step.as_str(), end]).collect()))
    }

    /// Where a response says that a step ends, as bytes of it; the last end may lack the white space behind it.
    pub(super) fn ends(&self, response: &str) -> Vec<Range<usize>> {
        let Some(end) = self.end.as_deref().filter(|end| !end.trim().is_empty()) else { return Vec::new() };
        let mut ends: Vec<_> = response.match_indices(end).map(|(at, found)| at..at + found.len()).collect();
        let (said, bare) = (response.trim_end(), end.trim_end());
        if !response.ends_with(end) && said.ends_with(bare) {
            ends.push(said.len() - bare.len()..said.len());
        }
        ends
    }

    /// The same within a text that the caller rendered, where the template goes on behind the last step: any end may lack
    /// the white space behind it, unless it becomes the beginning of a word.
    pub(super) fn ends_within(&self, text: &str) -> Vec<Range<usize>> {
        let Some(bare) = self.end.as_deref().map(str::trim_end).filter(|end| !end.is_empty()) else {
            return Vec::new();
        };
        let ends = text.match_indices(bare).map(|(at, found)| at..at + found.len());
        ends.filter(|end| !text[end.end..].starts_with(char::is_alphanumeric)).collect()
    }

    /// The steps of a response; the last one may lack its end.
    fn split<'a>(&self, response: &'a str) -> Vec<&'a str> {
        match self.end.as_deref() {
            None => vec![response],
            Some(end) => response.strip_suffix(end).unwrap_or(response).split(end).collect(),
        }
    }
}

/// The one token that a mark is behind a step: as text, or as the vocabulary spells it.
///
/// Some tokenizers know a word at the beginning of a text, behind a space and within a word as three tokens: where the
/// mark could be several, it is the one that stands where the mark is written.
fn mark_id(tokenizer: &Tokenizer, mark: &str, end: &str) -> Result<u32, TextError> {
    let alone = one_token(tokenizer, mark)?;
    let candidates: Vec<u32> = alone.iter().copied().chain(tokenizer.token_to_id(mark)).collect();
    let written = tokenizer.encode(format!("1{end}"), false);
    let written = written.map_err(|error| TextError::Tokenizer(error.to_string()))?;
    if let Some(found) = candidates.iter().find(|candidate| written.get_ids().contains(candidate)) {
        return Ok(*found);
    }
    // Such as a mark that the vocabulary spells with the space before it.
    let spelled = end.find(mark).and_then(|place| only_token(&written, place + 1..place + 1 + mark.len()));
    if let Some(found) = spelled.filter(|_| candidates.is_empty())
        && !is_unknown(tokenizer, found)?
    {
        return Ok(found);
    }
    match candidates.first() {
        Some(found) if end.contains(mark) => Ok(*found),
        Some(_) => Err(TextError::Config {
            key: "text.step_end",
            reason: format!(
                "{end:?} doesn't hold the step mark {mark:?}, as text or among its tokens; write what ends a step, the mark \
                 included"
            ),
        }),
        None => Err(TextError::Config {
            key: "text.step_mark",
            reason: format!(
                "the tokenizer doesn't know the token {mark:?}, which is {} tokens as text; write one of its vocabulary",
                alone.err().unwrap_or(1)
            ),
        }),
    }
}

/// The one token that stands for all of a place in a text, if one does.
fn only_token(encoding: &Encoding, place: Range<usize>) -> Option<u32> {
    let mut within = encoding.get_offsets().iter().zip(encoding.get_ids());
    let found = within.find(|((start, end), _)| *start < place.end && *end > place.start);
    found.filter(|((start, end), _)| *start <= place.start && *end >= place.end).map(|(_, id)| *id)
}

impl TextPipeline {
    /// The tokens of a rendered sample, its steps apart where the model wants them so.
    pub(super) fn encode_response(&self, rendered: &Rendered<'_>, options: TextOptions) -> Result<Tokens, TextError> {
        match self.steps.form {
            Form::Apart => self.encode_apart(rendered),
            Form::Marked(mark) => self.encode(rendered, options, mark),
            Form::Turns(_) => self.encode(rendered, options, None),
        }
    }

    fn encode_apart(&self, rendered: &Rendered<'_>) -> Result<Tokens, TextError> {
        let (text, response, literal) = match rendered {
            Rendered::Single { text, response: ResponseSpan::At { bytes, .. }, literal, .. } => (text, bytes, literal),
            Rendered::Single { response: ResponseSpan::Changed { said }, .. } => {
                return Err(TextError::Changed(said.clone()));
            }
            Rendered::Single { .. } | Rendered::Pair { .. } => return Err(TextError::WantsTurns),
        };
        let end = self.steps.end.as_deref().unwrap_or_default();
        let end_ids = self.ids(end, 0..end.len(), &[])?;
        let (mut steps, mut start) = (Vec::new(), response.start);
        for step in self.steps.split(&text[response.clone()]) {
            let place = start..start + step.len();
            start = place.end + end.len();
            let mut ids = if step.is_empty() { Vec::new() } else { self.ids(text, place, literal)? };
            ids.extend_from_slice(&end_ids);
            steps.push(ids);
        }
        let before = self.ids(text, 0..response.start, literal)?;
        let after = self.ids(text, response.end..text.len(), literal)?;
        Ok(Tokens::of_steps(&before, &steps, &after))
    }

    /// The tokens of a part of a text, tokenised by itself.
    fn ids(&self, text: &str, part: Range<usize>, literal: &[Range<usize>]) -> Result<Vec<u32>, TextError> {
        let within = literal.iter().filter(|place| place.start >= part.start && place.end <= part.end);
        let within: Vec<_> = within.map(|place| place.start - part.start..place.end - part.start).collect();
        Ok(self.encode_text(&text[part], &within, false)?.get_ids().to_vec())
    }

    /// A dialogue whose last response is taken apart: each step a turn of the user's, and an answer to each.
    pub(super) fn encode_turns(
        &self,
        conversation: &Conversation,
        answer: &str,
        options: TextOptions,
    ) -> Result<Tokens, TextError> {
        let mut turns = conversation.context().to_vec();
        let question = turns.pop_if(|turn| turn.role == Role::User).map(|turn| turn.content);
        let first = turns.len();
        let mut answers = Vec::new();
        // A blank turn says nothing that could be answered.
        let steps = self.steps.split(conversation.response()).into_iter().filter(|step| !step.trim().is_empty());
        for (number, step) in steps.enumerate() {
            let content = match &question {
                Some(question) if number == 0 => format!("{question} {step}"),
                _ => step.to_owned(),
            };
            turns.push(Message { role: Role::User, content });
            answers.push(turns.len());
            turns.push(Message { role: Role::Assistant, content: answer.to_owned() });
        }
        let (rendered, places) = self.renderer.answered(&turns, &answers, first)?;
        let Rendered::Single { text, literal, .. } = &rendered else { return Err(TextError::WantsTurns) };
        let encoding = self.encode_text(text, literal, options.special_tokens.unwrap_or(self.special_tokens))?;
        let offsets = encoding.get_offsets();
        let mut reads = Vec::with_capacity(places.len());
        for place in places {
            let mut within =
                (0..offsets.len()).filter(|token| offsets[*token].0 < place.end && offsets[*token].1 > place.start);
            match (within.next(), within.count()) {
                // The token before predicts the answer.
                (Some(token), 0) if token > 0 => reads.push(token - 1),
                (found, more) => {
                    let tokens = more + usize::from(found.is_some());
                    return Err(TextError::Word { word: answer.to_owned(), tokens });
                }
            }
        }
        Ok(Tokens::new(&encoding, &rendered, false).with_steps(reads))
    }
}
