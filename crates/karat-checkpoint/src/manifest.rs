//! The manifest that karat would write for a checkpoint: every decision as a line that a person can change.

use toml::{Table, Value};

use crate::{
    decided::{Decided, Gating, Reads},
    normalise::Normalisation,
    tokens::Tokens,
};

/// Longer samples than this are refused until somebody says that they are wanted: what they cost grows with the square.
pub(crate) const MOST_TOKENS: usize = 4096;

/// How the class of Skywork-o1-Open-PRM ends, which has one logit at the end of each step.
const SKYWORK_PRM: &str = "ForPrmModel";
/// The problem, a line break and the steps, as its authors' inference writes them.
const SKYWORK_TEMPLATE: &str = "{{ bos_token }}{{ messages[-2].content }}\n{{ messages[-1].content }}";

/// The manifest as TOML.
///
/// # Errors
/// Where only a person can tell what the head's numbers mean.
pub(crate) fn write(class: &str, decided: &Decided, tokens: &Tokens) -> Result<String, String> {
    let head = match (decided.reads, decided.width) {
        _ if decided.gating.is_some() => attributes(decided.width),
        (Reads::Logits, _) => Value::from("log_probability"),
        (Reads::Scores | Reads::Pairs, 1) => Value::from("scalar"),
        (Reads::Steps, 2) if class.ends_with("ForProcessRewardModel") => process(two_class()),
        (Reads::Steps, 1) if class.ends_with(SKYWORK_PRM) => process("sigmoid".into()),
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
    if let Some(Normalisation { mean, deviation }) = decided.normalise {
        let affine = Table::from_iter([
            ("scale".to_owned(), Value::from(1.0 / deviation)),
            ("offset".to_owned(), Value::from(-mean / deviation)),
        ]);
        let transform = Table::from_iter([("affine".to_owned(), Value::from(affine))]);
        manifest.insert("transforms".to_owned(), Value::Array(vec![transform.into()]));
    }
    let output = match decided.reads {
        _ if decided.gating.is_some() => Value::from(vec!["scores", "gates"]),
        Reads::Scores | Reads::Steps => Value::from("scores"),
        Reads::Logits | Reads::Pairs => Value::from("logits"),
    };
    let graph = Table::from_iter([("checkpoint".to_owned(), Value::from(".")), ("output".to_owned(), output)]);
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
    match decided.reads {
        Reads::Steps if class.ends_with(SKYWORK_PRM) => {
            let template = Table::from_iter([("jinja".to_owned(), Value::from(SKYWORK_TEMPLATE))]);
            text.insert("render".to_owned(), template.into());
            text.insert("steps".to_owned(), "apart".into());
            text.insert("step_end".to_owned(), "\n".into());
        }
        Reads::Steps => {
            text.insert("step_mark".to_owned(), "<extra_0>".into());
        }
        Reads::Scores | Reads::Logits | Reads::Pairs => {}
    }
    if let Some(token) = &decided.last_token {
        text.insert("last_token".to_owned(), Value::from(token.as_str()));
    }
    match decided.gating {
        None | Some(Gating::AtScore) => {}
        Some(Gating::AtMark(Some(mark))) => {
            text.insert("gate_mark".to_owned(), Value::from(mark));
        }
        Some(Gating::AtMark(None)) => {
            return Err(format!(
                "{class} reads its weights at a mark in the text, and which one is not known for this family: write a \
                 model.toml with checkpoint = \".\" in [graph], the head {{ attributes = {{ weights = \"gating\", … }} }} \
                 and the mark as gate_mark in [text]"
            ));
        }
    }
    manifest.insert("text".to_owned(), text.into());
    // A table of texts, numbers and tables always has a TOML form.
    Ok(toml::to_string(&manifest).unwrap_or_default())
}

/// The objectives of ArmoRM and QRM, in the order of their model cards.
const OBJECTIVES: [&str; 19] = [
    "helpsteer-helpfulness",
    "helpsteer-correctness",
    "helpsteer-coherence",
    "helpsteer-complexity",
    "helpsteer-verbosity",
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
    "beavertails-is_safe",
    "prometheus-score",
    "argilla-overall_quality",
    "argilla-judge_lm",
    "code-complexity",
    "code-style",
    "code-explanation",
    "code-instruction-following",
    "code-readability",
];

/// Objectives with weights that the graph computes. Names change no score: others than the known ones are numbers.
fn attributes(count: usize) -> Value {
    let names: Vec<Value> = if count == OBJECTIVES.len() {
        OBJECTIVES.into_iter().map(Value::from).collect()
    } else {
        (1..=count).map(|number| Value::from(format!("objective-{number}"))).collect()
    };
    let attributes =
        Table::from_iter([("names".to_owned(), Value::Array(names)), ("weights".to_owned(), Value::from("gating"))]);
    Table::from_iter([("attributes".to_owned(), Value::from(attributes))]).into()
}

/// What the head reads at each step, of which the worst counts.
fn process(read: Value) -> Value {
    let process = Table::from_iter([("read".to_owned(), read), ("reduction".to_owned(), Value::from("min"))]);
    Table::from_iter([("process".to_owned(), Value::from(process))]).into()
}

/// Two classes, of which the second is a good step (Zhang et al. 2025, "The Lessons of Developing Process Reward Models
/// in Mathematical Reasoning").
fn two_class() -> Value {
    let classes = Table::from_iter([("positive".to_owned(), Value::Integer(1))]);
    Table::from_iter([("two_class".to_owned(), Value::from(classes))]).into()
}
