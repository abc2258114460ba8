//! Texts with places to fill in, such as a judge's question.
//!
//! A place is a name in braces. All are filled at once, so that a prompt which happens to hold a place's name stays as it
//! is. Braces around anything else are text.

/// A text with named places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Texts, each followed by the place of that number, if any.
    pieces: Vec<(String, Option<usize>)>,
}

impl Pattern {
    /// Reads a text in which each of `names` stands in braces at least once.
    ///
    /// # Errors
    /// Which place is missing.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, String> {
        let mut pieces: Vec<(String, Option<usize>)> = Vec::new();
        let mut text_so_far = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            let (before, from) = rest.split_at(start);
            text_so_far.push_str(before);
            let found = names.iter().enumerate().find_map(|(place, name)| {
                let after = from.strip_prefix('{')?.strip_prefix(name)?.strip_prefix('}')?;
                Some((place, after))
            });
            match found {
                Some((place, after)) => {
                    pieces.push((std::mem::take(&mut text_so_far), Some(place)));
                    rest = after;
                }
                None => {
                    text_so_far.push('{');
                    rest = &from[1..];
                }
            }
        }
        text_so_far.push_str(rest);
        pieces.push((text_so_far, None));
        let filled = |place: usize| pieces.iter().any(|(_, found)| *found == Some(place));
        match names.iter().enumerate().find(|(place, _)| !filled(*place)) {
            Some((_, missing)) => Err(format!("{text:?} has no {{{missing}}}; write it where that text goes")),
            None => Ok(Self { pieces }),
        }
    }

    /// The text with its places filled, `values` in the order of the names; a value that is missing leaves its place
    /// empty.
    #[must_use]
    pub fn fill(&self, values: &[&str]) -> String {
        let pieces = self.pieces.iter().flat_map(|(text, place)| {
            let value = place.and_then(|place| values.get(place).copied());
            [text.as_str(), value.unwrap_or_default()]
        });
        pieces.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_other_braces_stay() {
        let pattern = Pattern::parse("{q}? {\"json\": {a}} {q} {", &["q", "a"]).unwrap();
        assert_eq!(pattern.fill(&["{a}", "{q}"]), "{a}? {\"json\": {q}} {a} {");
        assert!(Pattern::parse("{q}", &["q", "a"]).unwrap_err().contains("{a}"));
        assert_eq!(Pattern::parse("plain", &[]).unwrap().fill(&[]), "plain");
    }
}
