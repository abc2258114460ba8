//! Outcomes find the rewards of every dialect, by whichever id its reply tells.

use serde_json::{Value, json};

use super::{answer, server};
use crate::support::{Reply, Server};

/// Tells an outcome of the second sample of a request, which must be known.
async fn tell(server: &Server, path: &str, id: &str, index: u32) {
    let outcomes = json!({"outcomes": [{"request": id, "index": index, "value": true}]});
    let told = server.post_to("/v1/runs/a/outcomes", &outcomes).await;
    assert_eq!(told.body["accepted"], 1, "{path} {id}: {}", told.text);
}

#[tokio::test]
async fn the_ids_of_every_dialects_replies_name_their_samples() {
    let server = server().await;
    let ranked = json!({"model": "pair", "query": "10", "documents": ["20", "30"]});
    let passages = json!({"model": "pair", "query": {"text": "10"}, "passages": [{"text": "20"}, {"text": "40"}]});
    let message = |text: &str| {
        json!({"output": [{"type": "message", "role": "assistant",
                           "content": [{"type": "output_text", "text": text, "annotations": []}]}]})
    };
    let verified = json!({"responses_create_params": {"input": "10 20"}, "response": message("30")});
    let texts = json!([{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["10 20", "30"]}]);
    // Each with where its reply tells an id, if it does, and with how many samples.
    let requests: [(&str, Value, Option<&str>, u32); 18] = [
        ("/v1/score", json!({"model": "chat", "inputs": [{"text": "10"}, {"text": "20"}]}), Some("/id"), 2),
        ("/get_reward", json!({"query": ["10", "20"]}), None, 2),
        ("/classify", json!({"model": "pair", "input": ["10", "20"]}), Some("/id"), 2),
        ("/pooling", json!({"model": "pair", "input": ["10", "20"], "task": "classify"}), Some("/id"), 2),
        ("/score", json!({"model": "pair", "text_1": "10", "text_2": ["20", "30"]}), Some("/id"), 2),
        ("/v1/embeddings", json!({"model": "pair", "input": ["10", "20"]}), None, 2),
        ("/rerank", ranked.clone(), Some("/id"), 2),
        ("/jina/v1/rerank", ranked.clone(), None, 2),
        ("/cohere/v2/rerank", ranked.clone(), Some("/id"), 2),
        ("/cohere/v1/rerank", ranked, Some("/id"), 2),
        ("/v1/ranking", passages, None, 2),
        ("/m/pair/tei/predict", json!({"inputs": ["10", "20"]}), None, 1),
        ("/m/pair/rerank", json!({"query": "10", "texts": ["20", "30"]}), None, 2),
        ("/sglang/classify", json!({"model": "pair", "text": ["10", "20"]}), Some("/0/meta_info/id"), 2),
        ("/v1/score/evaluation", json!({"model": "chat", "messages": ["10", "20"]}), Some("/id"), 2),
        ("/slime/scalar", json!({"prompt": "10", "response": "20"}), None, 1),
        ("/verify", verified, None, 1),
        ("/v2/models/chat/infer", json!({"inputs": texts}), Some("/id"), 2),
    ];
    for (path, body, told, samples) in requests {
        let url = server.url(&format!("{path}?run=a&step=1"));
        let reply = Reply::of(server.client.post(url).json(&body)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        tell(&server, path, reply.header("x-request-id"), samples - 1).await;
        if let Some(pointer) = told {
            let again = answer(&server, &format!("{path}?run=a&step=1"), &body).await;
            let id = again.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: {again}"));
            tell(&server, path, id, samples - 1).await;
        }
    }
    let own = json!({"id": "mine", "inputs": texts});
    assert_eq!(answer(&server, "/v2/models/chat/infer?run=a&step=1", &own).await["id"], "mine");
    tell(&server, "/v2/models/chat/infer", "mine", 1).await;
}
