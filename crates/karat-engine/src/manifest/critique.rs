//! How a model writes critiques: what is asked, what ends one, and where its rating stands.

use std::num::NonZeroUsize;

use karat_rules::domain::Pattern;

use super::CritiqueSection;
use crate::text::{RatingParser, StopStrings};

/// How a model writes critiques.
#[derive(Debug, Clone)]
pub struct CritiqueDefinition {
    /// What is asked: the places are what was said before the response, and the response.
    pub request: Pattern,
    /// The most tokens of a critique, unless a request says otherwise.
    pub max_tokens: NonZeroUsize,
    /// What ends a critique.
    pub stop: StopStrings,
    /// Tokens that end a critique, beside the end-of-sequence token.
    pub end_tokens: Vec<String>,
    /// Finds the number that a judge writes.
    pub rating: Option<RatingParser>,
    /// The most critiques that are written at once.
    pub texts: NonZeroUsize,
}

impl CritiqueDefinition {
    /// Builds what a manifest writes.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub(super) fn new(section: CritiqueSection) -> Result<Self, (&'static str, String)> {
        let CritiqueSection { request, max_tokens, stop, end_tokens, rating, rating_range, texts } = section;
        let rating = match (rating, rating_range) {
            (Some(pattern), range) => {
                Some(RatingParser::new(&pattern, range).map_err(|reason| ("critique.rating", reason))?)
            }
            (None, Some(_)) => {
                return Err((
                    "critique.rating_range",
                    "there is a range and no rating; write critique.rating".to_owned(),
                ));
            }
            (None, None) => None,
        };
        Ok(Self {
            request: Pattern::parse(&request, &["prompt", "response"])
                .map_err(|reason| ("critique.request", reason))?,
            stop: StopStrings::new(stop).map_err(|error| ("critique.stop", error.to_string()))?,
            max_tokens,
            end_tokens,
            rating,
            texts,
        })
    }
}
