//! What is known of a sample's text beside its score: a hash, a length, and whether it declines to answer.
//!
//! Found out once, with the text's tokens, so that a text whose tokens are known costs no second look.

use karat_rules::domain::{Message, ModelName, Sample};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How responses begin that decline to answer, in small letters and with plain apostrophes. A short list, so that what it
/// finds is one, and what it doesn't find may be one.
const REFUSALS: [&str; 12] = [
    "i'm sorry, but i can",
    "i am sorry, but i can",
    "i'm sorry, i can",
    "sorry, but i can",
    "sorry, i can't",
    "i can't help",
    "i cannot help",
    "i can't assist",
    "i cannot assist",
    "i won't help",
    "i'm unable to",
    "as an ai language model, i can",
];

/// What is known of a sample's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Tells the sample from others.
    pub hash: u64,
    /// The response's length in characters, or in tokens where ids were sent; 0 of an image.
    pub length: u32,
    /// Whether the response begins like one that declines to answer.
    pub refusal: bool,
}

impl Facts {
    /// Reads a sample.
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        let chained = |seed, text: &str| xxh3_64_with_seed(text.as_bytes(), seed);
        let turns = |turns: &[Message]| turns.iter().fold(0, |seed, turn| chained(seed, &turn.content));
        match sample {
            Sample::Conversation(conversation) => {
                Self::of_response(conversation.response(), turns(conversation.messages()))
            }
            Sample::Text(text) => {
                Self::of_response(text.split().map_or(text.text(), |(_, response)| response), chained(1, text.text()))
            }
            Sample::Pair(pair) => {
                Self::of_response(pair.first(), chained(chained(turns(pair.turns()), pair.first()), pair.second()))
            }
            // The image is the response, which has no length in letters and declines nothing.
            Sample::Picture(picture) => {
                let images = picture.references().iter().chain([picture.image()]);
                let hash = images
                    .fold(chained(2, picture.prompt()), |seed, image| xxh3_64_with_seed(image.id().as_bytes(), seed));
                Self { hash, length: 0, refusal: false }
            }
            Sample::Tokens(ids) => {
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                Self { hash: xxh3_64(&bytes), length: count(ids.len()), refusal: false }
            }
        }
    }

    fn of_response(response: &str, hash: u64) -> Self {
        Self { hash, length: count(response.chars().count()), refusal: declines(response) }
    }

    /// Tells the sample from others, and from itself for another model.
    #[must_use]
    pub fn of_model(self, model: &ModelName) -> u64 {
        xxh3_64_with_seed(model.as_str().as_bytes(), self.hash)
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Whether a response begins like one that declines to answer.
fn declines(response: &str) -> bool {
    let begins = |phrase: &str| {
        let mut letters = response.trim_start().chars().map(|letter| match letter {
            '\u{2019}' => '\'',
            other => other.to_ascii_lowercase(),
        });
        phrase.chars().all(|expected| letters.next() == Some(expected))
    };
    REFUSALS.iter().any(|phrase| begins(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(prompt: &str, response: &str) -> Facts {
        Facts::of(&Sample::from_prompt(prompt.to_owned(), response.to_owned()).unwrap())
    }

    #[test]
    fn equal_samples_have_equal_hashes_and_no_others() {
        assert_eq!(facts("a", "b"), facts("a", "b"));
        assert_ne!(facts("a", "b").hash, facts("a b", "b").hash);
        assert_ne!(facts("ab", "c").hash, facts("a", "bc").hash);
        assert_eq!(facts("a", "größer").length, 6);
    }

    #[test]
    fn refusals_are_told_by_how_they_begin() {
        for response in ["I'm sorry, but I can't help.", "\n I’m sorry, but I cannot", "I cannot assist with this"] {
            assert!(facts("a", response).refusal, "{response}");
        }
        for response in ["I'm sorry to hear that.", "Sure!", "He said: I cannot assist"] {
            assert!(!facts("a", response).refusal, "{response}");
        }
    }
}
