//! `POST /v1/probe`.

use serde_json::json;

use super::{INVALID, assert_number};
use crate::support::{Repository, Server};

#[tokio::test]
async fn variants_are_scored_beside_their_samples() {
    let server = Server::of(&Repository::with_sum()).await;
    let inputs = json!([{"prompt": "", "response": "100"}, {"prompt": "", "response": "200"}]);
    let body = json!({"model": "sum", "inputs": inputs, "variants": [["150", "90"], []], "scale": 10, "toward": -1});
    let reply = server.post_to("/v1/probe", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let first = &reply.body["results"][0];
    assert_number(&first["reward"], 0.1);
    assert_number(&first["sensitivity"], 0.05);
    assert_number(&first["edits"][1]["change"], -0.01);
    // exp(-0.5), and -1 + 1.1 exp(-0.5).
    assert_number(&first["confidence"], 0.606531);
    assert_number(&first["weighted"], -0.332816);
    let second = &reply.body["results"][1];
    assert!(second["sensitivity"].is_null() && second["confidence"].is_null(), "what wasn't tried isn't 0: {second}");
}

#[tokio::test]
async fn edits_that_change_nothing_are_told_as_no_change() {
    let server = Server::of(&Repository::with_sum()).await;
    // The order of a sum doesn't matter, and blanks are none of its numbers.
    let inputs = json!([{"prompt": "", "response": "- 100\n- 120 130"}]);
    let reply = server.post_to("/v1/probe", &json!({"model": "sum", "run": "a", "inputs": inputs})).await;
    let result = &reply.body["results"][0];
    assert_number(&result["sensitivity"], 0.0);
    let edits: Vec<&str> =
        result["edits"].as_array().unwrap().iter().map(|edit| edit["edit"].as_str().unwrap()).collect();
    assert_eq!(edits, ["white_space", "list_order"], "{}", reply.text);
    assert_eq!(server.get("/v1/runs/a").await.body["samples"], 1, "edits are none of the run's samples");
}

#[tokio::test]
async fn what_can_not_be_probed_is_refused() {
    let server = Server::of(&Repository::with_sum()).await;
    let pair = json!({"prompt": "", "response": "100"});
    for (body, needle) in [
        (json!({"inputs": [{"text": "100"}]}), "only a prompt and a response"),
        (json!({"inputs": [pair], "variants": []}), "a list for each input"),
        (json!({"inputs": [pair], "variants": [[" "]]}), "blank"),
        (json!({"inputs": [pair], "scale": -1}), "scale"),
        (json!({"inputs": [pair], "counts": [1]}), "counts"),
    ] {
        let mut body = body;
        body["model"] = json!("sum");
        server.post_to("/v1/probe", &body).await.assert_problem(422, INVALID, needle);
    }
}
