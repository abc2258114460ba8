//! `POST /v1/probe`.

use serde_json::json;

use super::{INVALID, assert_number};
use crate::support::{RAW, Repository, Server};

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

/// A server whose model gives 0.1 more where a response begins with a small y.
async fn case_sensitive(rules: &str) -> Server {
    let render = "{ jinja = \"{{ messages[-1].content }}{% if messages[-1].content[0] == 'y' %} 100{% endif %}\" }";
    let repository = Repository::empty();
    let manifest = format!("{rules}\n[graph]\nfile = \"sum.onnx\"\n{}", RAW.replace("\"raw\"", render));
    repository.add("sum", &manifest, &["sum"]);
    Server::of(&repository).await
}

#[tokio::test]
async fn a_reward_is_weighed_by_its_sensitivity_in_the_request_that_asks_for_it() {
    let inputs = json!([{"prompt": "", "response": "yes 50"}, {"prompt": "", "response": "50"}, {"text": "50"}]);
    let (whole, two) = (json!({"model": "sum", "inputs": inputs}), json!(inputs.as_array().unwrap()[..2]));
    let by_request = case_sensitive("").await;
    let by_manifest = case_sensitive(
        "aggregate = { confidence_weighted = { uncertainty = \"sensitivity\", scale = 10, toward = -1 } }",
    )
    .await;
    let rule = json!({"confidence_weighted": {"uncertainty": "sensitivity", "scale": 10, "toward": -1}});
    for (server, rule) in [(&by_request, rule), (&by_manifest, json!(null))] {
        let mut body = json!({"model": "sum", "inputs": two, "aggregate": rule});
        let reply = server.post(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let results = &reply.body["results"];
        // Four tokens of the samples and six of their edits, each once.
        assert_eq!(reply.body["usage"]["tokens"], 10, "{}", reply.text);
        // 0.153 with a small letter and 0.053 with a large one.
        assert_number(&results[0]["sensitivity"], 0.1);
        assert_number(&results[0]["ensemble"]["mean"], 0.153);
        assert_number(&results[0]["reward"], -1.0 + 1.153 * (-1.0_f64).exp());
        assert_number(&results[1]["reward"], 0.05);
        // A text can't be edited: its response can't be told from the rest.
        body["inputs"] = inputs.clone();
        server.post(&body).await.assert_problem(422, INVALID, "messages, can be edited");
        body["on_refused"] = json!("mark");
        let marked = server.post(&body).await;
        assert_eq!(marked.status, 200, "{}", marked.text);
        assert!(marked.body["results"][2]["reward"].is_null(), "{}", marked.text);
        assert_eq!(marked.body["results"][0], *results.get(0).unwrap());
    }
    let mean = by_request.post(&whole).await;
    assert!(mean.body["results"][0].get("sensitivity").is_none(), "{}", mean.text);
    let impatient = json!({"model": "sum", "inputs": two, "wait": false});
    by_manifest.post(&impatient).await.assert_problem(422, INVALID, "wait");
    by_manifest
        .post_to("/v1/probe", &json!({"model": "sum", "inputs": two}))
        .await
        .assert_problem(422, INVALID, "mean");
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
