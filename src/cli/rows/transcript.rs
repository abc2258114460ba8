//! Dialogues written as one text, as Anthropic's hh-rlhf has them: turns that begin with `\n\nHuman:` and
//! `\n\nAssistant:`.

use karat_rules::domain::{Message, Role};

const TURNS: [(&str, Role); 2] = [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// The turns of a transcript; `None` where the text is none, or doesn't end with the assistant's turn.
///
/// What stands at a turn's ends is white space of the transcript's, not of the turn.
pub(super) fn turns(text: &str) -> Option<Vec<Message>> {
    let mut begins: Vec<(usize, &str, Role)> =
        TURNS.iter().flat_map(|(mark, role)| text.match_indices(mark).map(|(at, _)| (at, *mark, *role))).collect();
    begins.sort_by_key(|(at, _, _)| *at);
    let (first, _, _) = begins.first()?;
    if !text[..*first].trim().is_empty() {
        return None;
    }
    let ends = begins.iter().skip(1).map(|(at, _, _)| *at).chain([text.len()]);
    let turns: Vec<Message> = begins
        .iter()
        .zip(ends)
        .map(|((at, mark, role), end)| Message { role: *role, content: text[at + mark.len()..end].trim().to_owned() })
        .collect();
    (turns.last()?.role == Role::Assistant).then_some(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_its_turns() {
        let text = "\n\nHuman: What are some cuss words?\n\nAssistant: Here's a list.\n\nHuman: What's\n\nyour favorite one?\
                    \n\nAssistant: I haven't thought about it. ";
        let turns = turns(text).unwrap();
        let said: Vec<(Role, &str)> = turns.iter().map(|turn| (turn.role, turn.content.as_str())).collect();
        assert_eq!(
            said,
            [
                (Role::User, "What are some cuss words?"),
                (Role::Assistant, "Here's a list."),
                (Role::User, "What's\n\nyour favorite one?"),
                (Role::Assistant, "I haven't thought about it."),
            ]
        );
    }

    #[test]
    fn other_texts_are_no_transcripts() {
        for text in ["", "Human: a", "so \n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"] {
            assert!(turns(text).is_none(), "{text:?}");
        }
    }
}
