//! The dialects of other servers, byte by byte as their clients speak them.
//!
//! The models are small enough to compute by hand: `chat` renders turns as `user … assistant …`, each word that is no
//! number being token 3, and has three members, the sum of the tokens over 1000 times 1, 2 and −1; `pair` takes sentence
//! pairs as `[CLS] prompt [SEP] response [SEP]`, the special tokens being 1 and 2.

mod choice;
mod documentation;
mod fields;
mod grpc;
mod inference_servers;
mod kserve;
mod outcomes;
mod rerank;
mod trainers;

use karat::api::DialectSettings;
use serde_json::{Value, json};

use crate::support::{Reply, Repository, Server, Unserved};

const CHAT: &str = r#"
head = { multi = { members = 3 } }

[graph]
file = "members.onnx"

[text]
render = { jinja = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}" }
pad_token = "[PAD]"
bos_token = "[CLS]"
max_tokens = 16
"#;

const PAIR: &str = r#"
[graph]
file = "sum.onnx"

[text]
render = "pair"
pad_token = "[PAD]"
max_tokens = 16
"#;

/// A repository of both models.
fn repository() -> Repository {
    let repository = Repository::empty();
    repository.add("chat", CHAT, &["members"]);
    repository.add("pair", PAIR, &["sum"]);
    repository
}

/// A server of both models, `chat` being the default.
async fn server() -> Server {
    let settings = DialectSettings { default_model: "chat".parse().ok(), ..DialectSettings::default() };
    serve(&repository(), settings).await
}

async fn serve(repository: &Repository, dialects: DialectSettings) -> Server {
    let server = Unserved { dialects, ..Unserved::new() };
    server.load(repository).await.unwrap();
    server.serve().await
}

/// Posts to a dialect's route.
async fn post(server: &Server, path: &str, body: &Value) -> Reply {
    let reply = Reply::of(server.client.post(server.url(path)).json(body)).await;
    assert!(reply.text.is_empty() || reply.header("content-type") == "application/json", "{}", reply.text);
    reply
}

/// Posts to a dialect's route, which must answer 200.
async fn answer(server: &Server, path: &str, body: &Value) -> Value {
    let reply = post(server, path, body).await;
    assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text);
    reply.body
}

/// What karat's own route says about one input.
async fn native(server: &Server, model: &str, input: &Value) -> f64 {
    let reply = server.post(&json!({"model": model, "inputs": [input]})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.rewards()[0]
}

#[track_caller]
fn assert_near(actual: &Value, expected: f64) {
    let actual = actual.as_f64().unwrap_or_else(|| panic!("{actual} is no number"));
    assert!((actual - expected).abs() < 1e-5, "{actual} is not {expected}");
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
