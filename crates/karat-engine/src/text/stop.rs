//! Ends a text before a stop string, without ever showing a part of one.

/// Texts that end a generated text when they appear.
///
/// Invariant: none is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings(Vec<String>);

/// A stop string is empty, which would end every text before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stop string is empty; remove it, or write the text that ends the generation")]
pub struct EmptyStop;

impl StopStrings {
    /// Takes any number of texts.
    ///
    /// # Errors
    /// When one is empty.
    pub fn new(texts: Vec<String>) -> Result<Self, EmptyStop> {
        if texts.iter().any(String::is_empty) { Err(EmptyStop) } else { Ok(Self(texts)) }
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }
}

/// Passes text on until a stop string appears.
#[derive(Debug, Clone)]
pub(crate) struct StopMatcher {
    stops: StopStrings,
    /// What may be the beginning of a stop string, and so is not shown yet.
    held: String,
}

/// What came of a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    /// What may be shown.
    pub text: String,
    /// Whether a stop string appeared right after it.
    pub stopped: bool,
}

impl StopMatcher {
    /// Starts at the beginning of a text.
    #[must_use]
    pub(crate) fn new(stops: StopStrings) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the text's next piece. After a stop nothing more should be sent.
    pub(crate) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let found = self.stops.0.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(start) = found {
            let text = self.held[..start].to_owned();
            self.held.clear();
            return Passed { text, stopped: true };
        }
        let safe = self.held.len() - self.longest_beginning();
        Passed { text: self.held.drain(..safe).collect(), stopped: false }
    }

    /// The text is at its end: what was held back is no stop string.
    #[must_use]
    pub(crate) fn finish(self) -> String {
        self.held
    }

    /// How many bytes at the end of what is held may be the beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let ends = |stop: &String| {
            let beginnings = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
            beginnings.filter(|at| self.held.ends_with(&stop[..*at])).max().unwrap_or(0)
        };
        self.stops.0.iter().map(ends).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()).collect()).unwrap())
    }

    #[test]
    fn a_stop_that_comes_in_pieces_is_never_shown() {
        let mut matcher = matcher(&["\n\nUser", "ENDE"]);
        assert_eq!(matcher.push("well\n"), Passed { text: "well".to_owned(), stopped: false });
        assert_eq!(matcher.push("\nUs"), Passed { text: String::new(), stopped: false });
        assert_eq!(matcher.push("ual"), Passed { text: "\n\nUsual".to_owned(), stopped: false });
        assert_eq!(matcher.push(" \n\nUser:"), Passed { text: " ".to_owned(), stopped: true });
        let mut matcher = self::matcher(&["ENDE"]);
        assert_eq!(matcher.push("DEN EN").text, "DEN ");
        assert_eq!(matcher.finish(), "EN");
        assert_eq!(StopStrings::new(vec!["a".to_owned(), String::new()]), Err(EmptyStop));
    }

    proptest! {
        #[test]
        fn the_shown_text_is_what_stands_before_the_first_stop(
            text in "[abä]{0,24}",
            stops in prop::collection::vec("[abä]{1,4}", 0..4),
            cuts in prop::collection::vec(0..4_usize, 0..24),
        ) {
            let mut matcher = matcher(&stops.iter().map(String::as_str).collect::<Vec<_>>());
            let first = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
            let mut shown = String::new();
            let mut letters = text.chars();
            let mut cuts = cuts.into_iter().chain(std::iter::repeat(1));
            let stopped = loop {
                let piece: String = letters.by_ref().take(cuts.next().unwrap_or(1)).collect();
                let passed = matcher.push(&piece);
                shown.push_str(&passed.text);
                if passed.stopped || letters.as_str().is_empty() {
                    break passed.stopped;
                }
            };
            if !stopped {
                shown.push_str(&matcher.finish());
            }
            prop_assert_eq!(stopped, first.is_some());
            // A stop that completes first may overlap one that begins earlier: then a little more is shown.
            match first {
                None => prop_assert_eq!(shown, text),
                Some(start) => {
                    prop_assert!(text.starts_with(&shown) && shown.len() >= start);
                    prop_assert!(stops.iter().all(|stop| !shown.contains(stop.as_str())));
                }
            }
        }
    }
}
