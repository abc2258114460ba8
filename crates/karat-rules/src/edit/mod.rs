//! Edits of a response that shouldn't matter: a reward that they change hangs on something beside what is said.
//!
//! Each is plain and the same every time. What they mean for a reward is for the caller to judge: case matters to a model
//! that scores code.

use crate::domain::Sample;

/// An edit.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// Its name in replies.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    edit: fn(&str) -> String,
}

/// Every edit.
pub const ALL: [Edit; 3] = [
    Edit { name: "case", summary: "The first letter of each sentence in the other case.", edit: case },
    Edit {
        name: "white_space",
        summary: "Every run of blanks doubled or halved, and a line break at the end.",
        edit: white_space,
    },
    Edit { name: "list_order", summary: "The items of each list in reverse order.", edit: list_order },
];

impl Edit {
    /// The edited response; none where the edit changes nothing.
    #[must_use]
    pub fn apply(&self, response: &str) -> Option<String> {
        let edited = (self.edit)(response);
        (edited != response).then_some(edited)
    }
}

/// A sample's edits that change its response, by their names; none of a sample whose response stands in no conversation.
#[must_use]
pub fn of(sample: &Sample) -> Option<Vec<(&'static str, Sample)>> {
    let Sample::Conversation(conversation) = sample else { return None };
    let edited = ALL.iter().filter_map(|edit| {
        let response = edit.apply(conversation.response())?;
        // No edit leaves a response blank.
        Some((edit.name, Sample::Conversation(conversation.with_response(response).ok()?)))
    });
    Some(edited.collect())
}

fn case(response: &str) -> String {
    let mut begins = true;
    let other = |found: char| {
        if !found.is_alphabetic() {
            begins |= matches!(found, '.' | '!' | '?' | '\n');
            return found;
        }
        let first = std::mem::replace(&mut begins, false);
        other_case(found).filter(|_| first).unwrap_or(found)
    };
    response.chars().map(other).collect()
}

/// A letter in the other case; none where that is several letters, or leads back to another one.
fn other_case(letter: char) -> Option<char> {
    let (upper, lower) = (only(letter.to_uppercase()), only(letter.to_lowercase()));
    if letter.is_uppercase() {
        lower.filter(|lower| only(lower.to_uppercase()) == Some(letter))
    } else {
        upper.filter(|upper| only(upper.to_lowercase()) == Some(letter))
    }
}

fn only(mut letters: impl Iterator<Item = char>) -> Option<char> {
    letters.next().filter(|_| letters.next().is_none())
}

fn white_space(response: &str) -> String {
    let mut edited = String::with_capacity(response.len() * 2);
    let mut letters = response.chars().peekable();
    while let Some(letter) = letters.next() {
        edited.push(letter);
        if letter == ' ' {
            let mut blanks = 1;
            while letters.next_if_eq(&' ').is_some() {
                blanks += 1;
            }
            if blanks == 1 {
                edited.push(' ');
            }
        }
    }
    edited.push('\n');
    edited
}

/// Lines that begin like an item of a list, with what stands before the item's text.
fn item(line: &str) -> Option<(&str, &str)> {
    let text = line.trim_start();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mark = match digits {
        0 => ["- ", "* ", "• "].into_iter().find(|mark| text.starts_with(mark))?.len(),
        _ => digits + [". ", ") "].into_iter().find(|mark| text[digits..].starts_with(mark))?.len(),
    };
    Some(line.split_at(line.len() - text.len() + mark))
}

fn list_order(response: &str) -> String {
    let lines: Vec<&str> = response.split('\n').collect();
    let mut edited: Vec<String> = Vec::with_capacity(lines.len());
    for run in lines.chunk_by(|a, b| item(a).is_some() == item(b).is_some()) {
        let items: Vec<(&str, &str)> = run.iter().filter_map(|line| item(line)).collect();
        if items.len() == run.len() {
            // The marks stay in their places, so that numbers still count up.
            let texts = items.iter().rev().map(|(_, text)| text);
            edited.extend(items.iter().zip(texts).map(|((mark, _), text)| format!("{mark}{text}")));
        } else {
            edited.extend(run.iter().map(|line| (*line).to_owned()));
        }
    }
    edited.join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edited(name: &str, response: &str) -> Option<String> {
        ALL.iter().find(|edit| edit.name == name).unwrap().apply(response)
    }

    #[test]
    fn edits_change_form_and_not_words() {
        let told = |name, response| edited(name, response).unwrap();
        assert_eq!(told("case", "Yes, it is. No? ok"), "yes, it is. no? Ok");
        assert_eq!(told("white_space", "a b  c"), "a  b c\n");
        assert_eq!(told("list_order", "Do:\n1. eat\n2. sleep\n3. go\nDone"), "Do:\n1. go\n2. sleep\n3. eat\nDone");
        assert_eq!(told("list_order", "- a\n  * b"), "- b\n  * a");
        assert_eq!(edited("list_order", "One - two. 3 is odd."), None);
        assert_eq!(edited("case", "123"), None);
        assert_eq!(edited("case", "ß"), None, "a letter of two letters stays");
    }

    proptest! {
        #[test]
        fn any_text_can_be_edited(response in "\\PC{0,40}(\n[-*0-9.) a-zé]{0,6}){0,4}") {
            for edit in ALL {
                if let Some(edited) = edit.apply(&response) {
                    let letters = |text: &str| {
                        let mut letters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
                        letters.sort_unstable();
                        letters
                    };
                    prop_assert_eq!(letters(&edited), letters(&response), "{}", edit.name);
                }
            }
        }
    }
}
