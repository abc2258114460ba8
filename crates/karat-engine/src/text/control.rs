//! Control tokens in what a user or a policy wrote, such as `</s>` in a response.
//!
//! Transformers makes real control tokens of them wherever they stand, and a policy that is trained on a score may learn to
//! write them. A manifest may have them taken as letters (`split_special_tokens` of Transformers, but for what users wrote
//! alone) or refused. What a template writes stays what it is.

use std::ops::Range;

use tokenizers::{
    Encoding, NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
    Token, Tokenizer, normalizer::Range as At,
};

use super::{SpecialTokensInText, TextConfig, TextError};

/// What becomes of control tokens in what users wrote.
#[derive(Debug, Clone)]
pub(super) struct ControlTokens {
    policy: SpecialTokensInText,
    /// Their spellings, longest first; none of them stands for itself alone where it is the mark of steps, which karat
    /// writes into responses.
    spellings: Vec<String>,
}

impl ControlTokens {
    pub(super) fn load(config: &TextConfig, tokenizer: &Tokenizer) -> Self {
        let policy = config.special_tokens_in_text;
        let mut spellings: Vec<String> = match policy {
            SpecialTokensInText::Reference => Vec::new(),
            SpecialTokensInText::Literal | SpecialTokensInText::Refuse => {
                let added = tokenizer.get_added_tokens_decoder().into_values();
                added.filter(|token| token.special).map(|token| token.content).collect()
            }
        };
        spellings.retain(|spelling| !spelling.is_empty() && config.step_mark.as_ref() != Some(spelling));
        spellings.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        Self { policy, spellings }
    }

    /// Where control tokens are spelled in a text that a user wrote as a whole.
    ///
    /// # Errors
    /// When there is one and none may be.
    pub(super) fn spelled(&self, text: &str) -> Result<Vec<Range<usize>>, TextError> {
        let mut found = Vec::new();
        let mut at = 0;
        while !self.spellings.is_empty() && at < text.len() {
            let rest = &text[at..];
            match self.spellings.iter().find(|spelling| rest.starts_with(spelling.as_str())) {
                Some(spelling) => {
                    self.allow(spelling)?;
                    found.push(at..at + spelling.len());
                    at += spelling.len();
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        Ok(found)
    }

    /// Where the control tokens that turns spell stand in what `render` makes of the turns; `write` puts other contents
    /// into them.
    ///
    /// # Errors
    /// When there is one and none may be, or they can't be told from the template's own.
    pub(super) fn spelled_in_turns(
        &self,
        contents: &[&str],
        text: &str,
        render: impl FnOnce(Vec<String>) -> Result<String, TextError>,
    ) -> Result<Vec<Range<usize>>, TextError> {
        let mut spelled = false;
        let mut stand_ins = Vec::with_capacity(contents.len());
        for content in contents {
            let places = self.spelled(content)?;
            spelled |= !places.is_empty();
            stand_ins.push(self.with_stand_ins(content, &places));
        }
        if !spelled {
            return Ok(Vec::new());
        }
        let marked = render(stand_ins)?;
        let mut plain = String::with_capacity(text.len());
        let mut places = Vec::new();
        for (number, part) in marked.split(FENCE).enumerate() {
            let letter = part.chars().next().filter(|_| number % 2 == 1);
            match letter.and_then(|letter| self.spellings.get((letter as usize).checked_sub(FIRST)?)) {
                Some(spelling) => {
                    places.push(plain.len()..plain.len() + spelling.len());
                    plain.push_str(spelling);
                }
                None => plain.push_str(part),
            }
        }
        // A template that looks for them in what was said writes something else around a stand-in.
        if plain == text { Ok(places) } else { Err(TextError::HiddenControlToken) }
    }

    fn with_stand_ins(&self, content: &str, places: &[Range<usize>]) -> String {
        let mut marked = String::with_capacity(content.len());
        let mut end = 0;
        for place in places {
            marked.push_str(&content[end..place.start]);
            end = place.end;
            let number = self.spellings.iter().position(|spelling| *spelling == content[place.clone()]);
            let letter = number.and_then(|number| char::from_u32(u32::try_from(FIRST + number).ok()?));
            marked.push(FENCE);
            marked.extend(letter);
            marked.push(FENCE);
        }
        marked.push_str(&content[end..]);
        marked
    }

    fn allow(&self, spelling: &str) -> Result<(), TextError> {
        match self.policy {
            SpecialTokensInText::Refuse => Err(TextError::ControlToken(spelling.to_owned())),
            SpecialTokensInText::Literal | SpecialTokensInText::Reference => Ok(()),
        }
    }
}

/// What a stand-in for a control token begins and ends with, and the letter of the first of them: no template writes or
/// changes these.
const FENCE: char = '\u{f0000}';
const FIRST: usize = 0xf_1000;

/// The tokens of a text in which the control tokens at `literal` are letters, without what a tokenizer puts around it.
///
/// # Errors
/// When the tokenizer can't encode it.
pub(super) fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    literal: &[Range<usize>],
    type_id: u32,
) -> Result<Encoding, tokenizers::Error> {
    let vocabulary = tokenizer.get_added_vocabulary();
    let known = vocabulary.extract_and_normalize(tokenizer.get_normalizer(), text);
    let is_letters = |place: &Range<usize>| literal.iter().any(|one| one.start < place.end && place.start < one.end);
    let mut pieces: Vec<(Range<usize>, Option<Vec<Token>>)> = Vec::new();
    for (_, (start, end), tokens) in known.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        let place = start..end;
        let tokens = tokens.clone().filter(|_| !is_letters(&place));
        match (pieces.last_mut(), tokens) {
            // The letters of a control token belong to the text around it.
            (Some((last, None)), None) => last.end = end,
            (_, tokens) => pieces.push((place, tokens)),
        }
    }
    let mut split = PreTokenizedString::from(text);
    split.split(|_, whole: NormalizedString| {
        let parts = pieces
            .iter()
            .filter_map(|(place, tokens)| Some((whole.slice(At::Original(place.clone()))?, tokens.clone())));
        Ok(parts.collect::<Vec<_>>())
    })?;
    if let Some(normalizer) = tokenizer.get_normalizer() {
        split.normalize(|part| normalizer.normalize(part))?;
    }
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut split)?;
    }
    let model = tokenizer.get_model();
    split.tokenize(|part| tokenizers::Model::tokenize(model, part.get()))?;
    split.into_encoding(None, type_id, OffsetType::Byte)
}
