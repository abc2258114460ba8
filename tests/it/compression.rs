//! Bodies that come compressed, and replies that go so.

use std::io::{Read, Write};

use flate2::{
    Compression,
    read::GzDecoder,
    write::{GzEncoder, ZlibEncoder},
};
use karat_engine::schedule::QueueLimits;
use serde_json::{Value, json};

use crate::support::{FakeModel, Reply, Unserved, client};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post(model: &FakeModel, path: &str, encoding: &str, body: Vec<u8>) -> Reply {
    Reply::of(client().post(model.server.url(path)).header("content-encoding", encoding).body(body)).await
}

#[tokio::test]
async fn compressed_bodies_are_scored_like_plain_ones() {
    let model = FakeModel::serve(QueueLimits::default()).await;
    let body = json!({"model": "fake", "inputs": [{"text": "10 11"}, {"text": "12"}]});
    let plain = model.server.post(&body).await.rewards();
    let bytes = body.to_string().into_bytes();
    let compressed =
        [("gzip", gzip(&bytes)), ("deflate", deflate(&bytes)), ("zstd", zstd::encode_all(&*bytes, 3).unwrap())];
    for (encoding, compressed) in compressed {
        let reply = post(&model, "/v1/score", encoding, compressed).await;
        assert_eq!(reply.status, 200, "{encoding}: {}", reply.text);
        assert_eq!(reply.rewards(), plain, "{encoding}");
    }
}

#[tokio::test]
async fn what_comes_out_of_a_body_is_bounded() {
    let mut unserved = Unserved::new();
    unserved.limits.body_bytes = 64 << 10;
    let model = FakeModel::serve_with(QueueLimits::default(), unserved).await;
    let bomb = vec![b' '; 4 << 20];
    for (encoding, compressed) in [("gzip", gzip(&bomb)), ("zstd", zstd::encode_all(&*bomb, 3).unwrap())] {
        assert!(compressed.len() < 64 << 10);
        let reply = post(&model, "/v1/score", encoding, compressed).await;
        reply.assert_problem(413, "body-too-large", "--max-body-bytes");
    }
}

#[tokio::test]
async fn encodings_that_nobody_can_read_and_damaged_bodies_are_refused() {
    let model = FakeModel::serve(QueueLimits::default()).await;
    post(&model, "/v1/score", "br", b"{}".to_vec()).await.assert_problem(422, "invalid-request", "gzip");
    let in_its_shape = post(&model, "/vllm/score", "br", b"{}".to_vec()).await;
    assert!(in_its_shape.status == 400 && in_its_shape.body["error"].is_object(), "{}", in_its_shape.text);
    let damaged = post(&model, "/v1/score", "gzip", b"{\"model\"".to_vec()).await;
    assert_eq!(damaged.status, 400, "{}", damaged.text);
}

#[tokio::test]
async fn long_replies_are_compressed_for_those_who_ask() {
    let model = FakeModel::serve(QueueLimits::default()).await;
    let inputs: Vec<Value> = (10..13).cycle().take(60).map(|number| json!({"text": number.to_string()})).collect();
    let request = client()
        .post(model.server.url("/v1/score"))
        .header("accept-encoding", "gzip")
        .json(&json!({"model": "fake", "inputs": inputs}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{response:?}");
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut text = String::new();
    GzDecoder::new(&*response.bytes().await.unwrap()).read_to_string(&mut text).unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["results"].as_array().unwrap().len(), 60);
}
