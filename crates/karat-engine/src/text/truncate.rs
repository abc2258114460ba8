//! Cutting tokens by the policy that the caller chose, and never otherwise.

use std::ops::Range;

use karat_rules::domain::{Cut, TokenizedInput};
use tokenizers::Encoding;

use super::{
    TextError, Truncation,
    render::{Rendered, ResponseSpan},
};

/// A sample is longer than the model takes, and the policy doesn't allow or can't do the cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sample has {tokens} tokens and the model takes at most {max_tokens}; {advice}")]
pub struct TooLong {
    /// The sample's length in tokens.
    pub tokens: usize,
    /// The model's limit.
    pub max_tokens: usize,
    /// What to change.
    pub advice: &'static str,
}

/// The tokens of one sample with what is known about each.
pub(super) struct Tokens {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// Tokens that the tokenizer added; they are never cut.
    special: Vec<bool>,
    /// Which characters of the response each token stands for, where that is wanted; empty for all others.
    characters: Option<Vec<Range<usize>>>,
    response: Range<usize>,
    /// The tokens at which steps are read, where that is known before marks are sought; ascending.
    steps: Vec<usize>,
    /// The first token that stays when the start of the prompt is cut: the response's, or one before it.
    kept: usize,
    boundary: Boundary,
    cut: Cut,
}

/// Whether the tokens of prompt and response can be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Boundary {
    Known,
    CallersText,
    /// The template changed what was said, which begins so.
    Changed(String),
}

impl Tokens {
    /// The tokens of `rendered`; `offsets` when the characters that each stands for are wanted.
    pub(super) fn new(encoding: &Encoding, rendered: &Rendered<'_>, offsets: bool) -> Self {
        let ids = encoding.get_ids().to_vec();
        let special: Vec<bool> = encoding.get_special_tokens_mask().iter().map(|mask| *mask == 1).collect();
        let bytes_of = encoding.get_offsets();
        let (response, boundary, text) = match rendered {
            Rendered::Pair { response, .. } => {
                let sequences = encoding.get_sequence_ids();
                let span = span(ids.len(), |token| sequences[token] == Some(1) && !special[token]);
                (span, Boundary::Known, 0..response.len())
            }
            Rendered::Single { response: ResponseSpan::At { bytes, .. }, .. } => {
                let within = |token: usize| {
                    let (start, end) = bytes_of[token];
                    !special[token] && start < bytes.end && end > bytes.start
                };
                (span(ids.len(), within), Boundary::Known, bytes.clone())
            }
            Rendered::Single { response: ResponseSpan::CallersText, text, .. } => {
                (0..ids.len(), Boundary::CallersText, 0..text.len())
            }
            Rendered::Single { response: ResponseSpan::Changed { said }, text, .. } => {
                (0..ids.len(), Boundary::Changed(said.clone()), 0..text.len())
            }
        };
        let within_response = |token: usize| {
            let (start, end) = bytes_of[token];
            if special[token] || !response.contains(&token) {
                return 0..0;
            }
            let clamp = |byte: usize| byte.clamp(text.start, text.end) - text.start;
            clamp(start)..clamp(end)
        };
        let characters = offsets.then(|| {
            let bytes: Vec<Range<usize>> = (0..ids.len()).map(within_response).collect();
            let skipped = match rendered {
                Rendered::Single { response: ResponseSpan::At { skipped, .. }, .. } => *skipped,
                Rendered::Single { .. } | Rendered::Pair { .. } => 0,
            };
            characters(rendered.response(), skipped, &bytes)
        });
        let kept = match rendered {
            Rendered::Single { kept: Some(byte), .. } => bytes_of.iter().position(|(_, end)| end > byte),
            Rendered::Single { .. } | Rendered::Pair { .. } => None,
        };
        let kept = kept.map_or(response.start, |kept| kept.min(response.start));
        let type_ids = encoding.get_type_ids().to_vec();
        let steps = Vec::new();
        Self { ids, type_ids, special, characters, response, steps, kept, boundary, cut: Cut::default() }
    }

    /// A response whose steps were tokenised by themselves, none of them empty, between what stands around it.
    pub(super) fn of_steps(before: &[u32], steps: &[Vec<u32>], after: &[u32]) -> Self {
        let ids = [before, &steps.concat(), after].concat();
        let ends = steps.iter().scan(before.len(), |end, step| {
            *end += step.len();
            Some(*end - 1)
        });
        let ends: Vec<usize> = ends.collect();
        Self {
            response: before.len()..ids.len() - after.len(),
            kept: before.len(),
            boundary: Boundary::Known,
            steps: ends,
            ..Self::of_caller(&ids)
        }
    }

    /// Token ids that the caller made: none of them is known to be special, and steps are read at every mark.
    pub(super) fn of_caller_with_marks(ids: &[u32], mark: Option<u32>) -> Self {
        let marks = (0..ids.len()).filter(|token| mark == Some(ids[*token]));
        Self::of_caller(ids).with_steps(marks.collect())
    }

    /// Token ids that the caller made: none of them is known to be special.
    pub(super) fn of_caller(ids: &[u32]) -> Self {
        Self {
            ids: ids.to_vec(),
            type_ids: vec![0; ids.len()],
            special: vec![false; ids.len()],
            characters: None,
            response: 0..ids.len(),
            steps: Vec::new(),
            kept: 0,
            boundary: Boundary::CallersText,
            cut: Cut::default(),
        }
    }

    /// Protects the beginning-of-sequence token that a template wrote, and drops a second one: one from the template
    /// and one from the tokenizer is one too many. Says whether there was a second one.
    pub(super) fn keep_one_leading(&mut self, beginning: u32) -> bool {
        let doubled = self.ids.starts_with(&[beginning, beginning]);
        if doubled {
            self.remove(0..1);
        }
        if self.ids.first() == Some(&beginning) {
            self.special[0] = true;
        }
        doubled
    }

    /// Reads steps at the tokens of `mark` that stand where `ends` say, in bytes of the response as it is rendered, or of
    /// the whole text where the caller rendered it.
    ///
    /// # Errors
    /// With the place when such a token stands elsewhere there: who wrote it would be read as one who ends a step.
    pub(super) fn read_at(
        &mut self,
        mark: u32,
        encoding: &Encoding,
        start: usize,
        ends: &[Range<usize>],
    ) -> Result<(), TextError> {
        if let Boundary::Changed(_) = self.boundary {
            return Ok(());
        }
        let offsets = encoding.get_offsets();
        let is_end = |token: &usize| {
            let (from, to) = offsets[*token];
            ends.iter().any(|end| from < end.end + start && to > end.start + start)
        };
        let marks = self.response.clone().filter(|token| self.ids[*token] == mark && !self.special[*token]);
        let (read, stray): (Vec<usize>, Vec<usize>) = marks.partition(is_end);
        self.steps = read;
        match stray.first() {
            Some(token) => Err(TextError::StrayMark { at: offsets[*token].0.saturating_sub(start) }),
            None => Ok(()),
        }
    }

    /// Says at which tokens steps are read; they must ascend.
    pub(super) fn with_steps(self, steps: Vec<usize>) -> Self {
        Self { steps, ..self }
    }

    /// Puts a token behind all others that is never cut, unless it is the last one already.
    pub(super) fn end_with(&mut self, last: u32) {
        match self.ids.last() {
            Some(id) if *id == last => {
                let end = self.ids.len() - 1;
                self.special[end] = true;
            }
            _ => {
                self.ids.push(last);
                self.type_ids.push(self.type_ids.last().copied().unwrap_or(0));
                self.special.push(true);
                if let Some(characters) = &mut self.characters {
                    characters.push(0..0);
                }
            }
        }
    }

    /// Refuses a response that can't be found, as nobody could say which tokens are its own.
    pub(super) fn need_response(&self) -> Result<(), TextError> {
        match &self.boundary {
            Boundary::Known | Boundary::CallersText => Ok(()),
            Boundary::Changed(said) => Err(TextError::Changed(said.clone())),
        }
    }

    /// Drops what follows the response: a decoder reads nothing of it before.
    pub(super) fn end_with_response(&mut self) {
        let end = self.response.end;
        self.ids.truncate(end);
        self.type_ids.truncate(end);
        self.special.truncate(end);
        if let Some(characters) = &mut self.characters {
            characters.truncate(end);
        }
    }

    /// Leaves at most so many tokens of the response that stand for text.
    pub(super) fn shorten_response(&mut self, most: usize) -> Result<(), TooLong> {
        let said = self.response.clone().filter(|token| !self.special[*token]).count();
        let Some(excess) = said.checked_sub(most).filter(|excess| *excess > 0) else { return Ok(()) };
        let known = !matches!(self.boundary, Boundary::Changed(_));
        let removed = self.last_but_one(excess, self.response.clone()).filter(|_| known);
        let removed = removed.ok_or(TooLong {
            tokens: said,
            max_tokens: most,
            advice: "the template changes the text or has words of its own within it, so it can't be cut safely: shorten it",
        })?;
        self.cut.response_tokens += excess;
        self.remove(removed);
        Ok(())
    }

    /// Cuts as many tokens as are too many, by the policy.
    pub(super) fn fit(&mut self, max_tokens: usize, policy: Truncation) -> Result<(), TooLong> {
        let tokens = self.ids.len();
        let excess = tokens.saturating_sub(max_tokens);
        if excess == 0 {
            return Ok(());
        }
        let refuse = |advice| Err(TooLong { tokens, max_tokens, advice });
        if policy != Truncation::Refuse && matches!(self.boundary, Boundary::Changed(_)) {
            return refuse(
                "the template changes the response, so it can't be told apart from the prompt and nothing can be cut \
                 safely: shorten the sample",
            );
        }
        let removed = match (policy, &self.boundary) {
            (Truncation::Refuse, _) => {
                return refuse(
                    "shorten it, or choose a truncation: \"prompt_start\" keeps the whole response, \"response_end\" \
                     cuts it",
                );
            }
            (Truncation::PromptStart, Boundary::CallersText) => self.first(excess, 0..tokens),
            (Truncation::PromptStart, _) => self.first(excess, 0..self.kept),
            (Truncation::ResponseEnd, _) => self.last_but_one(excess, self.response.clone()),
        };
        let Some(removed) = removed else {
            return refuse(match policy {
                Truncation::PromptStart => {
                    "the response doesn't fit even without its prompt: shorten it, or cut it with \"response_end\""
                }
                _ => "the prompt leaves no room for a response: shorten it, or cut it with \"prompt_start\"",
            });
        };
        match (policy, &self.boundary) {
            (Truncation::PromptStart, Boundary::Known) => self.cut.prompt_tokens += excess,
            _ => self.cut.response_tokens += excess,
        }
        self.remove(removed);
        Ok(())
    }

    /// The finished input, with the places at which steps are read. None when no token of the response stands for text: what
    /// is invisible can't be judged.
    pub(super) fn into_input(self) -> Option<TokenizedInput> {
        if self.response.clone().all(|token| self.special[token]) {
            return None;
        }
        let response = self.response.clone();
        let input = TokenizedInput::new(self.ids, self.type_ids, self.response, self.cut)?.with_steps(self.steps)?;
        match self.characters {
            Some(characters) => input.with_offsets(characters[response].to_vec()),
            None => Some(input),
        }
    }

    /// The first `count` tokens of `range` that aren't special, if they stand side by side.
    fn first(&self, count: usize, range: Range<usize>) -> Option<Range<usize>> {
        let start = range.clone().find(|token| !self.special[*token])?;
        let removed = start..start + count;
        (removed.end <= range.end && self.special[removed.clone()].iter().all(|special| !special)).then_some(removed)
    }

    /// The last `count` tokens of `range` that aren't special, leaving at least one.
    fn last_but_one(&self, count: usize, range: Range<usize>) -> Option<Range<usize>> {
        let end = range.clone().rev().find(|token| !self.special[*token])? + 1;
        let removed = end.checked_sub(count)?..end;
        let keeps_one = range.clone().take_while(|token| *token < removed.start).any(|token| !self.special[token]);
        (keeps_one && self.special[removed.clone()].iter().all(|special| !special)).then_some(removed)
    }

    fn remove(&mut self, range: Range<usize>) {
        let shift = |position: usize| match position {
            early if early <= range.start => early,
            inside if inside < range.end => range.start,
            late => late - range.len(),
        };
        self.response = shift(self.response.start)..shift(self.response.end);
        self.kept = shift(self.kept);
        self.steps.retain(|step| !range.contains(step));
        self.steps.iter_mut().for_each(|step| *step = shift(*step));
        self.ids.drain(range.clone());
        self.type_ids.drain(range.clone());
        if let Some(characters) = &mut self.characters {
            characters.drain(range.clone());
        }
        self.special.drain(range);
    }
}

/// From ranges of bytes to ranges of characters (Unicode scalar values) of `text`, which `skipped` characters precede.
fn characters(text: &str, skipped: usize, bytes: &[Range<usize>]) -> Vec<Range<usize>> {
    // How many characters start before each byte: tokens of byte-level tokenizers may split one.
    let mut before = Vec::with_capacity(text.len() + 1);
    before.push(skipped);
    for byte in 0..text.len() {
        before.push(before[byte] + usize::from(text.is_char_boundary(byte)));
    }
    let started = |byte: usize| before[byte.min(text.len())];
    bytes
        .iter()
        .map(|range| match range.is_empty() {
            true => 0..0,
            // A token that begins within a character belongs to that character too.
            false => started(range.start + 1) - 1..started(range.end),
        })
        .collect()
}

/// From the first to the last token that belongs, empty at the end when none does.
fn span(count: usize, belongs: impl Fn(usize) -> bool) -> Range<usize> {
    let first = (0..count).find(|token| belongs(*token));
    let last = (0..count).rev().find(|token| belongs(*token));
    match (first, last) {
        (Some(first), Some(last)) => first..last + 1,
        _ => count..count,
    }
}
