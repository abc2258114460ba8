//! The reward toolkit over HTTP: choosing, comparing, steps, tokens, metrics and the catalogue.
//!
//! The models are the tiny graphs, so that every reward, margin and step score is known by hand; golden values are those
//! of the papers' formulas.

mod best_of_n;
mod catalogue;
mod compare;
mod metrics;
mod probe;
mod process;
mod rules;
mod tokens;

use serde_json::Value;

use crate::support::{Repository, is_close};

/// What marks a request as one that can't be answered.
const INVALID: &str = "invalid-request";

/// An ensemble of three: of a text whose numbers sum to 1000 s, the scores are s, 2s and -s.
const THREE_MEMBERS: &str = "head = { multi = { members = 3 } }";

/// The numbers of a JSON list.
#[track_caller]
fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_number(actual: &Value, expected: f64) {
    let actual = actual.as_f64().unwrap_or_else(|| panic!("no number: {actual}"));
    assert!(is_close(actual, expected), "{actual} is not {expected}");
}

#[track_caller]
fn assert_numbers(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{actual:?}");
    assert!(actual.iter().zip(expected).all(|(a, e)| is_close(*a, *e)), "{actual:?} is not {expected:?}");
}

/// Adds the model `steps`: the score of a step is the sigmoid of (its last number - 100) / 100, read at the mark 299.
fn add_process_model(repository: &Repository, reduction: &str) {
    let head = format!(
        r#"head = {{ process = {{ read = {{ two_class = {{ positive = 1 }} }}, reduction = "{reduction}" }} }}"#
    );
    let text = "[text]\nrender = \"pair\"\nspecial_tokens = false\npad_token = \"[PAD]\"\nmax_tokens = 64\n\
                step_mark = \"299\"\nstep_end = \" 299 \"\n";
    repository.add("steps", &format!("{head}\n[graph]\nfile = \"steps.onnx\"\n{text}"), &["steps"]);
}
