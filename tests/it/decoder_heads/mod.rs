//! Every head that asks a decoder, over HTTP. The models are the checkpoint `tests/graphs/tiny_decoder_lm` and, as the
//! reference that it is compared with, `tiny_decoder_reference`; what the heads must make of them stands in
//! `tests/graphs/tiny_decoder_heads.json`, from what Transformers makes of each text alone.

mod bad_input;
mod diversity;
mod scores;
mod too_long;
mod tournament;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Repository, Server};

const INVALID: &str = "invalid-request";
const POLICY: &str = "tiny_decoder_lm";
const REFERENCE: &str = "tiny_decoder_reference";
/// Two reward heads on the policy's layers.
const CLASSIFIER: &str = "tiny_decoder_scores";

/// Each turn between the mark of who speaks and an end; see `template` in `tests/graphs/decoder_heads.py`.
const TEMPLATE: &str = "290 {% for m in messages %}{{ {'system': 294, 'user': 291, 'assistant': 292}[m['role']] }} \
                        {{ m['content'] }} 293 {% endfor %}{% if add_generation_prompt %}292 {% endif %}";

const BETA: f64 = 0.5;
const FOLLOW_UP: &str = r#"{ follow_up = { categories = {
    thanks = { positive = ["17 60", "201"], negative = ["11"] },
    safety = { negative = ["33 34 35"] },
} } }"#;
const CONTRASTIVE: &str = r#"{ contrastive = { better = "15 16 {prompt}", worse = "18 {prompt} 19 18" } }"#;
const SINGLE: &str = r#"{ judge = { single = { question = "25 26", yes = ["30", "31"], no = ["40"] } } }"#;
const PAIR: &str = r#"{ judge = { pair = {
    question = "27 {prompt} 28 {first} 29 {second}", first = ["30"], second = ["40", "41"]
} } }"#;

/// The models of [`repository`] that score one response at a time.
const SINGLES: [&str; 7] =
    ["log_probability", "likelihood", "implicit", "implicit_mean", "follow_up", "contrastive", "judge_single"];

fn manifest(head: &str, checkpoints: &[&str], template: &str) -> String {
    format!(
        "head = {head}\n[graph]\ncheckpoint = {checkpoints:?}\n[text]\nrender = {{ jinja = \"{template}\" }}\nspecial_tokens = false\n\
         bos_token = \"290\"\npad_token = \"[PAD]\"\nmax_tokens = 200\n",
    )
}

/// A model for each head.
fn repository() -> Repository {
    with_template(TEMPLATE)
}

fn with_template(template: &str) -> Repository {
    let repository = Repository::empty();
    let both = [POLICY, REFERENCE];
    for (name, head, checkpoints) in [
        ("log_probability", "\"log_probability\"", &both[..1]),
        ("likelihood", "{ log_probability = { reduce = \"sum\" } }", &both[..1]),
        ("implicit", "{ implicit = { beta = 0.5 } }", &both[..]),
        ("implicit_mean", "{ implicit = { beta = 0.5, reduce = \"mean\" } }", &both[..]),
        ("follow_up", FOLLOW_UP, &both[..1]),
        ("contrastive", CONTRASTIVE, &both[..1]),
        ("judge_single", SINGLE, &both[..1]),
        ("judge_pair", PAIR, &both[..1]),
        ("embedding", "\"embedding\"", &both[..1]),
        ("classifier_embedding", "\"embedding\"", &[CLASSIFIER][..]),
    ] {
        repository.add_checkpoints(name, &manifest(head, checkpoints, template), checkpoints);
    }
    repository
}

async fn server() -> Server {
    Server::of(&repository()).await
}

/// What was recorded.
#[derive(Deserialize)]
struct Golden {
    dialogues: Vec<Dialogue>,
    /// A prompt, and a dialogue of which an early turn, is longer than the models take; scored with its start cut.
    too_long: [Dialogue; 2],
}

#[derive(Deserialize)]
struct Dialogue {
    messages: Vec<Turn>,
    candidates: Vec<Candidate>,
    /// Of each candidate and the next one: the preference for the former, shown first and shown second.
    orders: Vec<[f64; 2]>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: Vec<u32>,
}

#[derive(Deserialize)]
struct Candidate {
    response: Vec<u32>,
    /// The log-probability of each token of the response under the policy.
    policy: Vec<f64>,
    /// The same under the reference model.
    reference: Vec<f64>,
    /// The score of each category.
    follow_ups: [f64; 2],
    /// The reward of each token of the response.
    contrast: Vec<f64>,
    /// The last state under the policy.
    state: Vec<f64>,
    /// The share of yes.
    yes: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../graphs/tiny_decoder_heads.json")).unwrap()
}

impl Dialogue {
    fn messages(&self) -> Vec<Value> {
        self.messages.iter().map(|turn| json!({"role": turn.role, "content": text(&turn.content)})).collect()
    }

    /// A candidate with what goes before it, as an input of a request.
    fn input(&self, candidate: &Candidate) -> Value {
        let mut messages = self.messages();
        messages.push(json!({"role": "assistant", "content": text(&candidate.response)}));
        json!({"messages": messages})
    }

    /// Every candidate and the next one, as pairs of a request.
    fn pairs(&self) -> Vec<Value> {
        let pair = |two: &[Candidate]| json!({"messages": self.messages(), "chosen": text(&two[0].response), "rejected": text(&two[1].response)});
        self.candidates.windows(2).map(pair).collect()
    }
}

impl Candidate {
    /// What each token of the response earns by the implicit reward.
    fn implicit(&self) -> Vec<f64> {
        self.policy.iter().zip(&self.reference).map(|(policy, reference)| BETA * (policy - reference)).collect()
    }

    /// The score by the model of that name.
    fn score(&self, model: &str) -> f64 {
        match model {
            "log_probability" => mean(&self.policy),
            "likelihood" => self.policy.iter().sum(),
            "implicit" => self.implicit().iter().sum(),
            "implicit_mean" => mean(&self.implicit()),
            "follow_up" => mean(&self.follow_ups),
            "contrastive" => mean(&self.contrast),
            "judge_single" => self.yes,
            _ => panic!("{model} is no model of single responses"),
        }
    }
}

/// The text that the tests' tokenizer makes these ids of.
fn text(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[track_caller]
fn assert_near(found: &Value, expected: f64, told: &str) {
    let near = found.as_f64().is_some_and(|found| (found - expected).abs() < 1e-4);
    assert!(near, "{found} is not {expected}: {told}");
}

async fn score(server: &Server, model: &str, inputs: &[Value]) -> Vec<f64> {
    let reply = server.post(&json!({"model": model, "inputs": inputs})).await;
    assert_eq!(reply.status, 200, "{model}: {}", reply.text);
    reply.rewards()
}

#[track_caller]
fn assert_all_near(found: &[f64], expected: &[f64], told: &str) {
    assert_eq!(found.len(), expected.len(), "{told}");
    for (found, expected) in found.iter().zip(expected) {
        assert_near(&json!(found), *expected, told);
    }
}
