//! Why a checkpoint is served as its manifest says: a sentence for each decision, for the person who reads it.

use crate::{
    classes::{Class, Pooling},
    decided::{Decided, Gating, Reads},
    manifest::MOST_TOKENS,
    tokens::Tokens,
};

/// A sentence for each decision that isn't a matter of course.
pub(crate) fn of(class: &Class, head: &str, pad_id: Option<u32>, decided: &Decided, tokens: &Tokens) -> Vec<String> {
    let Decided { reads, width, context, normalise, gating, last_token, .. } = decided;
    let what = match reads {
        Reads::Scores => "a score for a whole conversation",
        Reads::Steps => "a score for each step",
        Reads::Logits => "the next token's logits",
        Reads::Pairs => "a score for a pair of texts",
    };
    let mut reasons = vec![format!("{} gives {what}; its head is {head}, of width {width}.", class.name)];
    if *reads == Reads::Scores {
        reasons.push(match (class.pooling, pad_id) {
            (Pooling::LastOther, Some(pad)) => {
                format!("The score stands at the last token that isn't pad_token_id, {pad}, as this class reads it.")
            }
            (Pooling::BeforeFirst, Some(pad)) => {
                format!("The score stands before the first token that is pad_token_id, {pad}, as this class reads it.")
            }
            _ => "The score stands at the last token.".to_owned(),
        });
    }
    reasons.push(match reads {
        Reads::Pairs => "Prompt and response are joined as the tokenizer joins pairs.".to_owned(),
        _ if tokens.chat_template => "Conversations are written by the chat template that lies beside it.".to_owned(),
        _ => "No chat template lies beside it: texts are scored whole, and no conversations, until one does or \
              text.render says how they are written."
            .to_owned(),
    });
    let longest = tokens.longest.map_or_else(|| "no bound".to_owned(), |longest| longest.to_string());
    reasons.push(format!(
        "max_tokens is the least of its positions ({context}), what its tokenizer was made for ({longest}), and \
         {MOST_TOKENS} until a manifest asks for more."
    ));
    if let Some(token) = last_token {
        reasons.push(format!("Every text ends with {token}, as reward_token_id says."));
    }
    if matches!(gating, Some(Gating::AtMark(Some(_)))) {
        reasons.push("Its objectives are weighed by the state where the last answer begins (gate_mark).".to_owned());
    }
    if normalise.is_some() {
        reasons
            .push("Rewards lose their mean and are divided by their deviation, as the configuration says.".to_owned());
    }
    reasons
}
