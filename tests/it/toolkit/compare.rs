//! `POST /v1/compare`.

use serde_json::{Value, json};

use super::{INVALID, THREE_MEMBERS, assert_number};
use crate::support::{Repository, Server};

async fn server() -> Server {
    let repository = Repository::with_sum();
    repository.add_graph("members", THREE_MEMBERS);
    Server::of(&repository).await
}

fn pair(chosen: &str, rejected: &str) -> Value {
    json!({"prompt": "", "chosen": chosen, "rejected": rejected})
}

async fn compare(server: &Server, body: Value) -> Value {
    let reply = server.post_to("/v1/compare", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.body
}

/// The members' margins are 0.2, 0.4 and -0.2: mean 0.4/3, population variance 0.08 - (0.4/3)².
#[tokio::test]
async fn a_pair_gets_its_margin_probability_and_strength() {
    let server = server().await;
    let pairs = json!([pair("200 100", "100"), pair("100", "200 100"), pair("100", "100")]);
    let body = compare(&server, json!({"model": "members", "pairs": pairs, "beta": 0.5, "include": ["members"]})).await;
    let first = &body["results"][0];
    assert_number(&first["margin"], 0.4 / 3.0);
    assert_number(&first["probability"], 0.533284);
    assert_number(&first["reward_difference"], 0.8 / 3.0);
    assert_number(&first["strength"]["mean"], 0.4 / 3.0);
    assert_number(&first["strength"]["deviation"], 0.249444);
    assert_eq!(first["unanimous"], false);
    assert!(first["suggestion"].is_null());
    assert_number(&first["chosen"]["reward"], 0.2);
    assert_number(&first["rejected"]["ensemble"]["members"][2], -0.1);
    assert_number(&body["results"][1]["margin"], -0.4 / 3.0);
    assert_number(&body["results"][2]["probability"], 0.5);
    // A tie is no right answer.
    assert_number(&body["accuracy"], 1.0 / 3.0);
    assert!((0..3).all(|index| body["results"][index]["index"] == index));

    let alone = compare(&server, json!({"model": "sum", "pairs": [pair("200", "100"), pair("100", "100")]})).await;
    assert_eq!(alone["results"][0]["unanimous"], true);
    assert_eq!(alone["results"][1]["unanimous"], false);
    assert!(alone["results"][0]["reward_difference"].is_null());
}

#[tokio::test]
async fn cuts_make_suggestions() {
    let server = server().await;
    let pairs = json!([pair("100", "200"), pair("110", "100"), pair("200", "100"), pair("290 290", "100")]);
    let cuts = json!({"strengths": {"flip": 0, "ambiguous": 0.05, "smooth": 0.3}});
    let body = compare(&server, json!({"model": "sum", "pairs": pairs, "cuts": cuts})).await;
    for (index, suggestion) in ["flip", "ambiguous", "keep", "smooth"].into_iter().enumerate() {
        assert_eq!(body["results"][index]["suggestion"], suggestion);
    }
}

#[tokio::test]
async fn what_can_not_be_compared_is_refused() {
    let server = server().await;
    let two = json!([pair("200", "100"), pair("100", " ")]);
    for (body, needle) in [
        (json!({"model": "sum", "pairs": []}), "at least one"),
        (json!({"model": "sum", "pairs": two}), "the response is empty"),
        (json!({"model": "sum", "pairs": [{"prompt": "", "chosen": "10"}]}), "rejected"),
        (json!({"model": "sum", "pairs": [pair("20", "10")], "beta": 0}), "beta must be a finite number above 0"),
        (json!({"model": "sum", "pairs": [pair("20", "10")], "cuts": {"strengths": {"flip": 1}}}), "ambiguous"),
        (
            json!({"model": "sum", "pairs": [pair("20", "10")],
                   "cuts": {"strengths": {"flip": 1, "ambiguous": 0, "smooth": 2}}}),
            "ascend",
        ),
        (json!({"model": "sum", "pairs": [pair("20", "10")], "transforms": ["grpo"]}), "grpo"),
    ] {
        server.post_to("/v1/compare", &body).await.assert_problem(422, INVALID, needle);
    }
}

#[tokio::test]
async fn a_pair_at_fault_is_named_by_its_index() {
    let server = server().await;
    let long = "10 ".repeat(65);
    for fault in [pair("100", " "), pair(" ", "100"), pair("100", &long), pair(&long, "100")] {
        let body = json!({"model": "sum", "pairs": [pair("20", "10"), pair("20", "10"), fault]});
        let reply = server.post_to("/v1/compare", &body).await;
        assert_eq!((reply.status, &reply.body["index"]), (422, &json!(2)), "{}", reply.text);
    }
}
