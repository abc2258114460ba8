//! Bad input gets its own answer, which says what to change, and harms nobody else.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{RawConnection, Reply, Repository, Server};

const MALFORMED: (u16, &str) = (400, "malformed-json");
const INVALID: (u16, &str) = (422, "invalid-request");
const UNKNOWN_MODEL: (u16, &str) = (404, "unknown-model");
const TOO_LONG: (u16, &str) = (422, "too-long");

/// Bodies of `POST /v1/score` that are no JSON, or none that a string literal could hold; with what the answer says.
fn malformed() -> Vec<(Vec<u8>, (u16, &'static str), &'static str)> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with = |rest: &str| format!(r#"{{"model":"sum","inputs":[{{"text":"10"}}],{rest}}}"#).into_bytes();
    vec![
        (Vec::new(), MALFORMED, "the body is empty"),
        (b"{".to_vec(), MALFORMED, "not valid JSON"),
        (b"model=sum".to_vec(), MALFORMED, "not valid JSON"),
        (br#"{"model":"sum","inputs":[{"text":"10"}]} {}"#.to_vec(), MALFORMED, "something follows"),
        (b"{\"model\":\"sum\",\"inputs\":[{\"text\":\"\xff\"}]}".to_vec(), MALFORMED, "not UTF-8"),
        (br#"{"model":"sum","inputs":[{"text":"\ud800"}]}"#.to_vec(), MALFORMED, "not valid JSON"),
        (with(r#""aggregate":{"uncertainty_weighted":{"lambda":NaN}}"#), MALFORMED, "not valid JSON"),
        (with(r#""aggregate":{"uncertainty_weighted":{"lambda":1e999}}"#), MALFORMED, "out of range"),
        (with(r#""timeout_ms":1e999"#), MALFORMED, "out of range"),
        (nested(100_000 / 4).into_bytes(), INVALID, "invalid type"),
        (with(&format!(r#""aggregate":{}"#, nested(10_000))), MALFORMED, "recursion limit"),
        (with(&format!(r#""transforms":[{{"clip":{}}}]"#, nested(10_000))), MALFORMED, "recursion limit"),
        (with(r#""model":"sum""#), INVALID, "duplicate field `model`"),
        (br#"{"model":"sum","inputs":[{"text":"10","text":"11"}]}"#.to_vec(), INVALID, "duplicate field `text`"),
        (with(r#""aggregate":{"uncertainty_weighted":{"lambda":0.1,"lambda":0.2}}"#), INVALID, "lambda"),
        (with(r#""transforms":[{"clip":{"min":0,"min":1}}]"#), INVALID, "min"),
    ]
}

/// JSON bodies of `POST /v1/score` that can't be scored, with what the answer says.
fn unscorable() -> Vec<(Value, (u16, &'static str), &'static str)> {
    let input = |input: Value| json!({"model": "sum", "inputs": [{"text": "10"}, input]});
    let with = |key: &str, value: Value| json!({"model": "members", "inputs": [{"text": "10"}], key: value});
    let transform = |transform: Value| with("transforms", json!([transform]));
    // Members of 17.94, 35.88 and -17.94.
    let large = "299 ".repeat(60);
    let overflow = |key: &str, value: Value| json!({"model": "members", "inputs": [{"text": large}], key: value});
    let long = "10 ".repeat(65);
    vec![
        (json!([]), INVALID, "invalid type: sequence, expected an object"),
        (json!(["sum", [{"text": "10"}], null, null, null, [], "normal", null]), INVALID, "expected an object"),
        (json!("sum"), INVALID, "invalid type: string \"sum\", expected an object"),
        (json!({"inputs": [{"text": "10"}]}), INVALID, "missing field `model`"),
        (json!({"model": "sum"}), INVALID, "missing field `inputs`"),
        (json!({"model": "sum", "inputs": []}), INVALID, "send at least one"),
        (json!({"model": "sum", "inputs": {"text": "10"}}), INVALID, "inputs: invalid type: map"),
        (json!({"model": 3, "inputs": [{"text": "10"}]}), INVALID, "model: invalid type: integer"),
        (json!({"model": "absent", "inputs": [{"text": "10"}]}), UNKNOWN_MODEL, "members, not_a_number, sum"),
        (json!({"model": "../sum", "inputs": [{"text": "10"}]}), UNKNOWN_MODEL, "GET /v1/models"),
        (json!({"model": "", "inputs": [{"text": "10"}]}), UNKNOWN_MODEL, "GET /v1/models"),
        (with("temperature", json!(1)), INVALID, "unknown field `temperature`"),
        (input(json!({"text": "10", "role": "user"})), INVALID, "inputs[1].role: unknown field `role`"),
        (input(json!({"text": 10})), INVALID, "inputs[1].text: invalid type: integer"),
        (input(json!("10")), INVALID, "inputs[1]: invalid type: string"),
        (input(json!(["", "10", null, null])), INVALID, "inputs[1]: invalid type: sequence, expected an object"),
        (input(json!({"messages": [["assistant", "10"]]})), INVALID, "inputs[1].messages[0]: invalid type: sequence"),
        (input(json!({})), INVALID, "inputs[1]: write exactly one of"),
        (input(json!({"prompt": "10"})), INVALID, "inputs[1]: write exactly one of"),
        (input(json!({"prompt": null, "response": null})), INVALID, "inputs[1]: write exactly one of"),
        (input(json!({"text": "10", "prompt": "", "response": "11"})), INVALID, "inputs[1]: write exactly one of"),
        (input(json!({"text": ""})), INVALID, "inputs[1]: the text is empty"),
        (input(json!({"prompt": "", "response": " \n\t"})), INVALID, "inputs[1]: the response is empty"),
        (input(json!({"prompt": "10", "response": "11"})), INVALID, "send an empty prompt"),
        (input(json!({"messages": []})), INVALID, "the list of messages is empty"),
        (input(json!({"messages": [{"role": "user", "content": "10"}]})), INVALID, "end with the \"assistant\""),
        (input(json!({"messages": [{"role": "judge", "content": "10"}]})), INVALID, "unknown variant `judge`"),
        (input(json!({"messages": [{"role": "user"}]})), INVALID, "missing field `content`"),
        (input(json!({"text": long})), TOO_LONG, "has 65 tokens and the model takes at most 64"),
        (with("aggregate", json!("middle")), INVALID, "mean, worst_case, uncertainty_weighted, "),
        (with("aggregate", json!({"mean": {}, "sum": {}})), INVALID, "found 2 keys"),
        (with("aggregate", json!("uncertainty_weighted")), INVALID, "missing field `lambda`"),
        (with("aggregate", json!({"uncertainty_weighted": {"lambda": -0.5}})), INVALID, "at least 0, found -0.5"),
        (with("aggregate", json!({"uncertainty_weighted": {"lambda": "0.5"}})), INVALID, "invalid type: string"),
        (with("aggregate", json!({"uncertainty_weighted": {"lambda": null}})), INVALID, "invalid type: null"),
        (with("aggregate", json!({"uncertainty_weighted": {"lamda": 0.5}})), INVALID, "unknown field `lamda`"),
        (with("aggregate", json!({"uncertainty_weighted": 0.5})), INVALID, "must be a table, found a number"),
        (overflow("aggregate", json!({"uncertainty_weighted": {"lambda": 1e308}})), INVALID, "not finite"),
        (overflow("transforms", json!([{"affine": {"scale": 1e308}}])), INVALID, "bound the reward with a clip"),
        (with("transforms", json!("clip")), INVALID, "transforms: invalid type: string"),
        (transform(json!("squash")), INVALID, "affine"),
        (transform(json!("clip")), INVALID, "name min, max or both"),
        (transform(json!({"clip": {"min": 1, "max": 0}})), INVALID, "min 1 is above max 0; swap them"),
        (transform(json!({"clip": {"min": "low"}})), INVALID, "invalid type: string"),
        (transform(json!({"log_sigmoid": {}})), INVALID, "missing field `reference`"),
        (transform(json!("delta")), INVALID, "acts on the steps of a process reward"),
        (with("truncation", json!("middle")), INVALID, "unknown variant `middle`"),
        (with("include", json!(["everything"])), INVALID, "unknown variant `everything`"),
        (with("include", json!("members")), INVALID, "include: invalid type: string"),
        (with("priority", json!("urgent")), INVALID, "unknown variant `urgent`"),
        (with("timeout_ms", json!(0)), INVALID, "timeout_ms must be at least 1"),
        (with("timeout_ms", json!(-1)), INVALID, "timeout_ms: invalid value"),
        (with("timeout_ms", json!("1s")), INVALID, "timeout_ms: invalid type: string"),
    ]
}

/// A server of the models `members`, `not_a_number` and `sum`.
async fn server() -> Server {
    let repository = Repository::with_sum();
    repository.add_graph("members", "head = { multi = { members = 3 } }");
    repository.add_graph("not_a_number", "");
    Server::of(&repository).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_its_own_answer_and_harms_nobody() {
    let server = server().await;
    let bad = async {
        let bodies = unscorable().into_iter().map(|(body, kind, needle)| (body.to_string().into_bytes(), kind, needle));
        let mut wrong = Vec::new();
        for (body, (status, slug), needle) in malformed().into_iter().chain(bodies) {
            let shown: String = String::from_utf8_lossy(&body).chars().take(120).collect();
            let reply = server.post_bytes(body).await;
            wrong.extend(reply.is_problem(status, slug, needle).err().map(|answer| format!("{shown}\n  {answer}")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    };
    let good = async {
        for number in 10..110 {
            let text = format!("{number} {number}");
            assert_eq!(server.rewards("sum", &[&text]).await, [f64::from((number * 2) as f32 / 1000.0)]);
        }
    };
    tokio::join!(bad, good);
}

#[tokio::test]
async fn an_input_at_fault_is_named_by_its_index() {
    let server = server().await;
    for fault in [json!({"text": " "}), json!({"text": "10 ".repeat(65)})] {
        let reply = server.post(&json!({"model": "sum", "inputs": [{"text": "10"}, {"text": "11"}, fault]})).await;
        assert_eq!((reply.status, &reply.body["index"]), (422, &json!(2)), "{}", reply.text);
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let server = server().await;
    // The server takes 64 KiB and 64 inputs.
    let mut announced = RawConnection::open(server.address);
    announced.head("Content-Length: 65537");
    announced.reply().await.assert_problem(413, "body-too-large", "more than 65536 bytes");

    let mut chunked = RawConnection::open(server.address);
    chunked.head("Transfer-Encoding: chunked");
    for _ in 0..65 {
        chunked.send(format!("400\r\n{}\r\n", "[".repeat(0x400)).as_bytes());
    }
    chunked.reply().await.assert_problem(413, "body-too-large", "--max-body-bytes");

    let many = |count: usize| json!({"model": "sum", "inputs": vec![json!({"text": "10"}); count]});
    server.post(&many(65)).await.assert_problem(422, "too-many-inputs", "65 inputs");
    assert_eq!(server.post(&many(64)).await.status, 200);
}

#[tokio::test]
async fn unknown_places_and_wrong_methods_are_problems_too() {
    let server = server().await;
    server.get("/v2/score").await.assert_problem(404, "unknown-route", "/v2/score");
    server.get("/").await.assert_problem(404, "unknown-route", "GET /openapi.json");
    server.get("/v1/models/absent").await.assert_problem(404, "unknown-model", "\"absent\"");
    server.get("/v1/models/%2e%2e%2fsum").await.assert_problem(404, "unknown-model", "GET /v1/models");
    let wrong = server.get("/v1/score").await;
    wrong.assert_problem(405, "wrong-method", "/v1/score doesn't take GET");
    assert_eq!(wrong.header("allow"), "POST");
    let wrong = Reply::of(server.client.delete(server.url("/v1/models"))).await;
    wrong.assert_problem(405, "wrong-method", "DELETE");
    assert!(wrong.header("allow").contains("GET"), "{:?}", wrong.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logit_that_is_no_number_is_an_error_that_names_the_model() {
    let server = server().await;
    let (server, inputs) = (&server, |text: &str| json!({"model": "not_a_number", "inputs": [{"text": text}]}));
    let bad = async |text: &str| {
        let reply = server.post(&inputs(text)).await;
        reply.assert_problem(500, "model-failed", "not_a_number");
        assert!(reply.body.get("results").is_none(), "{}", reply.text);
    };
    let good = async |number: u32| {
        let reply = server.post(&inputs(&format!("{number} 200"))).await;
        assert_eq!(reply.rewards(), [f64::from((number + 200) as f32 / 1000.0)]);
    };
    // As many at once as makes passes hold samples of both kinds; each sample is new.
    for round in 0..5 {
        let bad = (0..8).map(|client| async move {
            let poison = if client % 2 == 0 { 13 } else { 14 };
            bad(&format!("{poison} {}", 20 + round * 8 + client)).await;
        });
        let good = (0..32).map(|client| good(20 + round * 32 + client));
        tokio::join!(join_all(bad), join_all(good));
    }
    // An error is no score to keep: the same text fails again, also beside a good one of the same request.
    bad("13 20").await;
    let mixed = json!({"model": "not_a_number", "inputs": [{"text": "20 200"}, {"text": "13 20"}]});
    let mixed = server.post(&mixed).await;
    mixed.assert_problem(500, "model-failed", "sample 1: the model not_a_number");
    mixed.assert_problem(500, "model-failed", "NaN where a finite number should be");
    assert_eq!(mixed.body["index"], 1, "{}", mixed.text);
}
