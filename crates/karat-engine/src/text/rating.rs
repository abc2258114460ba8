//! The number that a judge wrote.

use std::ops::RangeInclusive;

use regex::Regex;

/// Finds the rating in a judge's text.
#[derive(Debug, Clone)]
pub struct RatingParser {
    pattern: Regex,
    range: Option<RangeInclusive<f64>>,
}

impl RatingParser {
    /// Takes a regular expression whose first group is the number, and what range it must lie in.
    ///
    /// # Errors
    /// When the expression is wrong or has no group, or the range holds nothing.
    pub fn new(pattern: &str, range: Option<[f64; 2]>) -> Result<Self, String> {
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        if pattern.captures_len() < 2 {
            return Err(format!("{pattern} has no group; put the number in parentheses"));
        }
        let range = match range {
            Some([low, high]) if !(low.is_finite() && high.is_finite() && low <= high) => {
                return Err(format!("{low} to {high} is no range; write the lowest and then the highest rating"));
            }
            range => range.map(|[low, high]| low..=high),
        };
        Ok(Self { pattern, range })
    }

    /// As [`Self::parse`], of a text that was broken off: a number that ends where the text does may be the beginning of
    /// another, and is none.
    #[must_use]
    pub(crate) fn parse_broken_off(&self, text: &str) -> Option<f64> {
        let number = self.pattern.captures_iter(text).last()?.get(1)?;
        if number.end() == text.len() { None } else { self.parse(text) }
    }

    /// The number of the last match, since judges decide after they have argued; `None` when there is none, or it is no
    /// finite number, or lies outside the range. Never a guess.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<f64> {
        let found = self.pattern.captures_iter(text).last()?;
        let number: f64 = found.get(1)?.as_str().trim().parse().ok()?;
        let fits = self.range.as_ref().is_none_or(|range| range.contains(&number));
        (number.is_finite() && fits).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_may_go_on_is_none() {
        let parser = RatingParser::new(r"rating: (\d+)", Some([1.0, 10.0])).unwrap();
        for (text, whole, broken_off) in [
            ("rating: 1", Some(1.0), None),
            ("rating: 1\n", Some(1.0), Some(1.0)),
            ("rating: 7, not rating: 1", Some(1.0), None),
            ("rating: 7, since", Some(7.0), Some(7.0)),
            ("rating:", None, None),
        ] {
            assert_eq!((parser.parse(text), parser.parse_broken_off(text)), (whole, broken_off), "{text}");
        }
    }

    #[test]
    fn the_last_rating_counts_and_what_is_none_is_none() {
        let parser = RatingParser::new(r"(?i)rating:\s*(-?[\d.]+)", Some([1.0, 10.0])).unwrap();
        for (text, rating) in [
            ("Rating: 7", Some(7.0)),
            ("I'd say rating: 3. On reflection, Rating: 4.5 it is.", Some(4.5)),
            ("Rating: 11", None),
            ("Rating: 0", None),
            ("Rating: -1", None),
            ("Rating: 7.", Some(7.0)),
            ("Rating: 1.2.3", None),
            ("Rating: ...", None),
            ("seven out of ten", None),
            ("", None),
        ] {
            assert_eq!(parser.parse(text), rating, "{text:?}");
        }
    }

    #[test]
    fn what_can_not_find_a_number_is_refused() {
        for (pattern, range) in
            [("(", None), (r"\d+", None), (r"(\d)", Some([3.0, 1.0])), (r"(\d)", Some([f64::NAN, 1.0]))]
        {
            assert!(RatingParser::new(pattern, range).is_err(), "{pattern}");
        }
    }
}
