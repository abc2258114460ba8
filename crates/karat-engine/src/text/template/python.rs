//! Methods of Python's strings and dictionaries that templates call, beyond those that minijinja-contrib has.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, Tuple, ValueKind, from_args},
};

/// Answers a method that a value doesn't have by itself.
pub(super) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let own = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => of_string(text, name, arguments)?,
        (ValueKind::Map, _) if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(answer) => Ok(answer),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

fn of_string(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (letters,): (Option<&str>,) = from_args(arguments)?;
            Value::from(strip(text, name, letters))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let parts = match (name, text) {
                ("partition", _) => text.split_once(separator).map(|(before, after)| (before, separator, after)),
                _ => text.rsplit_once(separator).map(|(before, after)| (before, separator, after)),
            };
            let (before, middle, after) = parts.unwrap_or(match name {
                "partition" => (text, "", ""),
                _ => ("", "", text),
            });
            Value::from(Tuple::from([before, middle, after].map(Value::from)))
        }
        "title" => {
            let () = from_args(arguments)?;
            Value::from(title(text))
        }
        "split" | "rsplit" => return split(text, name, arguments).map(Some),
        _ => return Ok(None),
    }))
}

/// Python counts four control characters as white space that Unicode doesn't.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

/// Python's `strip` and its like.
pub(super) fn strip<'a>(text: &'a str, name: &str, letters: Option<&str>) -> &'a str {
    let taken = |letter: char| letters.map_or_else(|| is_space(letter), |letters| letters.contains(letter));
    match name {
        "lstrip" => text.trim_start_matches(taken),
        "rstrip" => text.trim_end_matches(taken),
        _ => text.trim_matches(taken),
    }
}

/// A letter that follows none begins a word, also after an apostrophe.
fn title(text: &str) -> String {
    let mut within = false;
    let mut titled = String::with_capacity(text.len());
    for letter in text.chars() {
        if within {
            titled.extend(letter.to_lowercase());
        } else {
            titled.extend(letter.to_uppercase());
        }
        within = letter.is_lowercase() || letter.is_uppercase();
    }
    titled
}

fn split(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = separator.map_or_else(|| named.get("sep"), |value| Ok(Some(value)))?;
    let most = most.map_or_else(|| named.get("maxsplit"), |most| Ok(Some(most)))?;
    named.assert_all_used()?;
    let parts = usize::try_from(most.unwrap_or(-1)).map_or(usize::MAX, |most: usize| most.saturating_add(1));
    let separator = separator.filter(|separator| !separator.is_none());
    let found: Vec<&str> = match separator.as_ref().map(|separator| separator.as_str()) {
        Some(None) => return Err(Error::new(ErrorKind::InvalidOperation, "split takes a text")),
        Some(Some("")) => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(Some(separator)) if name == "split" => text.splitn(parts, separator).collect(),
        Some(Some(separator)) => reversed(text.rsplitn(parts, separator).collect()),
        None if name == "split" => words(text, parts),
        None => reversed_words(text, parts),
    };
    Ok(found.into_iter().map(Value::from).collect())
}

fn reversed(mut parts: Vec<&str>) -> Vec<&str> {
    parts.reverse();
    parts
}

/// The words of a text, the last of which holds all that is left.
fn words(text: &str, parts: usize) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() && found.len() + 1 < parts {
        let end = rest.find(is_space).unwrap_or(rest.len());
        found.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    found.extend((!rest.is_empty()).then_some(rest));
    found
}

/// The words of a text, the first of which holds all that is left.
fn reversed_words(text: &str, parts: usize) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() && found.len() + 1 < parts {
        let start = rest.char_indices().rev().find(|(_, letter)| is_space(*letter));
        let start = start.map_or(0, |(at, letter)| at + letter.len_utf8());
        found.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    found.extend((!rest.is_empty()).then_some(rest));
    reversed(found)
}
