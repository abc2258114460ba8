//! The manifest that karat would write for a checkpoint: every decision as a line that a person can change.

use toml::{Table, Value};

use crate::{
    checkpoint::{Decided, Reads},
    tokens::Tokens,
};

/// Longer samples than this are refused until somebody says that they are wanted: what they cost grows with the square.
const MOST_TOKENS: usize = 4096;

/// The manifest as TOML.
///
/// # Errors
/// Where only a person can tell what the head's numbers mean.
pub(crate) fn write(class: &str, decided: &Decided, tokens: &Tokens) -> Result<String, String> {
    let head = match (decided.reads, decided.width) {
        (Reads::Logits, _) => Value::from("log_probability"),
        (Reads::Scores | Reads::Pairs, 1) => Value::from("scalar"),
        (Reads::Steps, 2) if class.ends_with("ForProcessRewardModel") => process(),
        (_, width) => {
            return Err(format!(
                "the head gives {width} numbers, which can mean several things: write a model.toml with checkpoint = \
                 \".\" in [graph] and say which head reads them, such as head = {{ multi = {{ members = {width} }} }}"
            ));
        }
    };
    let mut manifest = Table::new();
    manifest.insert("description".to_owned(), format!("{class}, served from its checkpoint").into());
    manifest.insert("head".to_owned(), head);
    if let Some((mean, deviation)) = decided.normalise {
        let affine = Table::from_iter([
            ("scale".to_owned(), Value::from(1.0 / deviation)),
            ("offset".to_owned(), Value::from(-mean / deviation)),
        ]);
        let transform = Table::from_iter([("affine".to_owned(), Value::from(affine))]);
        manifest.insert("transforms".to_owned(), Value::Array(vec![transform.into()]));
    }
    let output = match decided.reads {
        Reads::Scores | Reads::Steps => "scores",
        Reads::Logits | Reads::Pairs => "logits",
    };
    let graph =
        Table::from_iter([("checkpoint".to_owned(), Value::from(".")), ("output".to_owned(), Value::from(output))]);
    manifest.insert("graph".to_owned(), graph.into());
    let longest = decided.context.min(tokens.longest.unwrap_or(usize::MAX)).min(MOST_TOKENS);
    let render = match decided.reads {
        Reads::Pairs => "pair",
        _ if tokens.chat_template => "chat_template",
        _ => "raw",
    };
    let mut text = Table::new();
    text.insert("render".to_owned(), render.into());
    text.insert("max_tokens".to_owned(), Value::Integer(i64::try_from(longest).unwrap_or(i64::MAX)));
    if decided.reads == Reads::Steps {
        text.insert("step_mark".to_owned(), Value::from("<extra_0>"));
    }
    manifest.insert("text".to_owned(), text.into());
    // A table of texts, numbers and tables always has a TOML form.
    Ok(toml::to_string(&manifest).unwrap_or_default())
}

/// Two classes at each step's mark, of which the second is a good step (Zhang et al. 2025, "The Lessons of Developing
/// Process Reward Models in Mathematical Reasoning").
fn process() -> Value {
    let classes = Table::from_iter([("positive".to_owned(), Value::Integer(1))]);
    let read = Table::from_iter([("two_class".to_owned(), Value::from(classes))]);
    let process =
        Table::from_iter([("read".to_owned(), Value::from(read)), ("reduction".to_owned(), Value::from("min"))]);
    Table::from_iter([("process".to_owned(), Value::from(process))]).into()
}
