//! KServe's V2 protocol and Triton's extensions.

use serde_json::{Value, json};

use super::{answer, assert_near, native, post, server};
use crate::support::{Reply, Server};

const INFER: &str = "/v2/models/chat/infer";

/// The output of that name.
fn output<'a>(reply: &'a Value, name: &str) -> &'a Value {
    let outputs = reply["outputs"].as_array().unwrap();
    outputs.iter().find(|output| output["name"] == name).unwrap_or_else(|| panic!("no {name} in {reply}"))
}

#[tokio::test]
async fn text_pairs_and_tokens_get_the_native_scores() {
    let server = server().await;
    let text = native(&server, "chat", &json!({"text": "10 20"})).await;
    let pair = native(&server, "chat", &json!({"prompt": "10", "response": "20"})).await;
    let bytes = |name: &str, shape: Value, data: Value| json!({"name": name, "shape": shape, "datatype": "BYTES", "data": data});
    let tokens = json!({"name": "tokens", "shape": [2, 3], "datatype": "INT64", "data": [[10, 20, 9], [10, 9, 9]]});
    let lengths = json!({"name": "sequence_lengths", "shape": [2, 1], "datatype": "INT32", "data": [2, 1]});
    for (inputs, expected) in [
        (json!([bytes("text", json!([1]), json!(["10 20"]))]), text),
        (json!([bytes("sentences", json!([2, 1]), json!([["10 20"], ["30"]]))]), text),
        (json!([bytes("response", json!([1]), json!(["20"])), bytes("prompt", json!([1]), json!(["10"]))]), pair),
        (json!([tokens, lengths]), text),
    ] {
        let reply = answer(&server, INFER, &json!({"id": "mine", "inputs": inputs})).await;
        assert_eq!((&reply["model_name"], &reply["id"]), (&json!("chat"), &json!("mine")));
        assert_near(&output(&reply, "rewards")["data"][0], expected);
    }
}

#[tokio::test]
async fn every_output_is_given_unless_some_are_named() {
    let server = server().await;
    let text = json!([{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["100", "200 100"]}]);
    let reply = answer(&server, &format!("{INFER}?aggregate=worst_case"), &json!({"inputs": text})).await;
    for (name, shape, values) in [
        ("rewards", [2, 1], vec![-0.1, -0.3]),
        ("mean", [2, 1], vec![0.2 / 3.0, 0.2]),
        ("variance", [2, 1], vec![0.14 / 9.0, 0.14]),
        ("members", [2, 3], vec![0.1, 0.2, -0.1, 0.3, 0.6, -0.3]),
    ] {
        let output = output(&reply, name);
        assert_eq!((&output["shape"], &output["datatype"]), (&json!(shape), &json!("FP32")));
        assert_eq!(output["data"].as_array().unwrap().len(), values.len());
        values.iter().enumerate().for_each(|(index, value)| assert_near(&output["data"][index], *value));
    }
    assert_eq!(output(&reply, "exceeded")["data"], json!([false, false]));
    let one = answer(&server, INFER, &json!({"inputs": text, "outputs": [{"name": "raw"}]})).await;
    assert_eq!(one["outputs"].as_array().map(Vec::len), Some(1));
    let unknown = post(&server, INFER, &json!({"inputs": text, "outputs": [{"name": "logits"}]})).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.body["error"].as_str().unwrap().contains("worst_case"), "{}", unknown.text);
}

/// Posts JSON followed by packed tensors.
async fn post_packed(server: &Server, json: &Value, packed: &[u8], length: Option<usize>) -> reqwest::Response {
    let mut body = json.to_string().into_bytes();
    let length = length.unwrap_or(body.len());
    body.extend(packed);
    let request = server.client.post(server.url(INFER)).header("Inference-Header-Content-Length", length);
    request.body(body).send().await.unwrap()
}

#[tokio::test]
async fn packed_tensors_go_both_ways() {
    let server = server().await;
    let request = json!({
        "inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 14}}],
        "outputs": [{"name": "rewards", "parameters": {"binary_data": true}}, {"name": "mean"},
                    {"name": "exceeded", "parameters": {"binary_data": true}}],
    });
    let packed = b"\x03\x00\x00\x00300\x03\x00\x00\x00150";
    let response = post_packed(&server, &request, packed, None).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/octet-stream".parse().unwrap())
    );
    let length: usize = response.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let body = response.bytes().await.unwrap();
    let (json, values) = body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(output(&json, "rewards")["parameters"]["binary_data_size"], 8);
    // 300 isn't a token of the tokenizer, so it is token 3.
    for (index, expected) in [0.002_f32, 0.1].into_iter().enumerate() {
        let value = f32::from_le_bytes(values[index * 4..][..4].try_into().unwrap());
        assert!((value - expected).abs() < 1e-6, "{value}");
        assert_near(&output(&json, "mean")["data"][index], f64::from(value));
    }
    assert_eq!(values[8..], [0, 0]);

    let all = json!({"parameters": {"binary_data_output": true}, "inputs": request["inputs"]});
    let response = post_packed(&server, &all, packed, None).await;
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
}

#[tokio::test]
async fn tensors_that_do_not_fit_are_refused() {
    let server = server().await;
    let input = |size: usize| json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}]});
    let packed = b"\x02\x00\x00\x0010";
    for (json, length) in [(input(7), None), (input(5), None), (input(3), None), (input(6), Some(9_999))] {
        assert_eq!(post_packed(&server, &json, packed, length).await.status(), 400, "{json} {length:?}");
    }
    let tensor = |name: &str, shape: Value, datatype: &str, data: Value| json!({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]});
    for body in [
        tensor("text", json!([2]), "BYTES", json!(["10"])),
        tensor("text", json!([1]), "BYTES", json!([10])),
        tensor("text", json!([1]), "FP32", json!([1.0])),
        tensor("logits", json!([1]), "BYTES", json!(["10"])),
        tensor("prompt", json!([1]), "BYTES", json!(["10"])),
        tensor("tokens", json!([1, 1]), "INT64", json!([-1])),
        tensor("tokens", json!([0, 4]), "INT64", json!([])),
        tensor("tokens", json!([1, 0]), "INT64", json!([])),
        json!({"inputs": []}),
    ] {
        let reply = post(&server, INFER, &body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert!(reply.body["error"].is_string(), "{}", reply.text);
    }
}

#[tokio::test]
async fn models_describe_themselves() {
    let server = server().await;
    let get = async |path: &str| server.get(path).await;
    assert_eq!(get("/v2").await.body["name"], "karat");
    for path in
        ["/v2/health/live", "/v2/health/ready", "/v2/models/chat/ready", "/kserve/v2/models/chat/versions/1/ready"]
    {
        assert_eq!(get(path).await.status, 200, "{path}");
    }
    let metadata = get("/v2/models/chat").await.body;
    let version = metadata["versions"][0].as_str().unwrap();
    assert_eq!(metadata["inputs"][0], json!({"name": "text", "datatype": "BYTES", "shape": [-1, 1]}));
    assert_eq!(get(&format!("/v2/models/chat/versions/{version}")).await.status, 200);
    let config = get("/v2/models/chat/config").await.body;
    assert_eq!((&config["max_batch_size"], &config["output"][0]["data_type"]), (&json!(64), &json!("TYPE_FP32")));
    for path in ["/v2/models/nobody", "/v2/models/chat/versions/2/ready", "/v2/models/nobody/config"] {
        let reply = get(path).await;
        assert_eq!((reply.status, reply.body["error"].is_string()), (404, true), "{path}");
    }
}

#[tokio::test]
async fn the_repository_is_listed() {
    let server = server().await;
    let bare = Reply::of(server.client.post(server.url("/v2/repository/index"))).await;
    let names: Vec<&str> = bare.body.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["chat", "pair"]);
    let ready = answer(&server, "/v2/repository/index", &json!({"ready": true})).await;
    assert_eq!(ready[0]["state"], "READY");
}
