//! KServe's V2 protocol over gRPC. The messages are written down here a second time, by number, so that a number that
//! changes in the protocol file shows.

use std::{collections::HashMap, io::Read};

use flate2::read::GzDecoder;
use image::ImageFormat;
use prost::Message;
use serde_json::json;

use super::server;
use crate::{
    images,
    support::{Server, Unserved},
};

#[derive(Clone, PartialEq, Message)]
struct InferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Tensor>,
    #[prost(message, repeated, tag = "6")]
    outputs: Vec<Wanted>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    packed: Vec<Vec<u8>>,
}

/// A parameter that is text.
#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(string, tag = "3")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
struct Contents {
    #[prost(int64, repeated, tag = "3")]
    integers: Vec<i64>,
    #[prost(float, repeated, tag = "6")]
    floats: Vec<f32>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    texts: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Wanted {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct InferResponse {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "2")]
    model_version: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    packed: Vec<Vec<u8>>,
}

/// The message `{1: value}`: readiness, health and names are of this form.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

/// Calls a method; an error is gRPC's status code.
async fn call<R: Message + Default>(server: &Server, method: &str, message: &impl Message) -> Result<R, u32> {
    let response = send(server, method, message, "identity").await;
    // A call that failed has its status in the headers, since nothing follows them.
    if let Some(status) = response.headers().get("grpc-status") {
        return Err(status.to_str().unwrap().parse().unwrap());
    }
    let body = response.bytes().await.unwrap();
    Ok(R::decode(&body[5..]).unwrap())
}

/// Calls a method and takes replies in an encoding.
async fn send(server: &Server, method: &str, message: &impl Message, encoding: &str) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let message = message.encode_to_vec();
    // A frame is a flag, the length in network order, and the message.
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let request = client.post(server.url(method)).header("content-type", "application/grpc").header("te", "trailers");
    request.header("grpc-accept-encoding", encoding).body(frame).send().await.unwrap()
}

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn tensor(name: &str, datatype: &str, shape: &[i64], contents: Option<Contents>) -> Tensor {
    Tensor { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec(), contents }
}

#[tokio::test]
async fn packed_and_plain_tensors_get_the_same_scores() {
    let server = server().await;
    let wanted = vec![Wanted { name: "rewards".to_owned() }];
    let texts = Contents { texts: vec![b"10 20".to_vec(), b"30".to_vec()], ..Contents::default() };
    let plain = InferRequest {
        model_name: "chat".to_owned(),
        id: "mine".to_owned(),
        inputs: vec![tensor("text", "BYTES", &[2, 1], Some(texts))],
        outputs: wanted.clone(),
        ..InferRequest::default()
    };
    let reply: InferResponse = call(&server, INFER, &plain).await.unwrap();
    assert_eq!((reply.model_name.as_str(), reply.id.as_str(), reply.model_version.len()), ("chat", "mine", 16));
    assert_eq!((reply.outputs[0].datatype.as_str(), reply.outputs[0].shape.as_slice()), ("FP32", [2, 1].as_slice()));
    let scores = reply.outputs[0].contents.clone().unwrap().floats;
    assert!((scores[0] - 0.02).abs() < 1e-6 && (scores[1] - 0.02).abs() < 1e-6, "{scores:?}");

    let ids: Vec<u8> = [10_i64, 20, 30, 9].iter().flat_map(|id| id.to_le_bytes()).collect();
    let lengths: Vec<u8> = [2_i32, 1].iter().flat_map(|length| length.to_le_bytes()).collect();
    let packed = InferRequest {
        inputs: vec![tensor("tokens", "INT64", &[2, 2], None), tensor("sequence_lengths", "INT32", &[2, 1], None)],
        packed: vec![ids, lengths],
        ..plain
    };
    let reply: InferResponse = call(&server, INFER, &packed).await.unwrap();
    assert_eq!(reply.outputs[0].contents, None);
    let bytes: Vec<u8> = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
    assert_eq!(reply.packed, [bytes]);
}

#[tokio::test]
async fn a_large_message_is_answered_as_a_small_one_is() {
    let mut unserved = Unserved::new();
    unserved.limits.body_bytes = 1 << 20;
    unserved.load(&super::repository()).await.unwrap();
    let server = unserved.serve().await;
    let texts = Contents { texts: vec![b"10 20".to_vec()], ..Contents::default() };
    let large = InferRequest {
        model_name: "chat".to_owned(),
        id: "x".repeat(300_000),
        inputs: vec![tensor("text", "BYTES", &[1], Some(texts))],
        ..InferRequest::default()
    };
    let reply: InferResponse = call(&server, INFER, &large).await.unwrap();
    assert!(reply.id == large.id && !reply.outputs.is_empty());
    let unknown = InferRequest { model_name: "other".to_owned(), inputs: Vec::new(), ..large };
    assert_eq!(call::<InferResponse>(&server, INFER, &unknown).await, Err(5), "not found, before it is invalid");
}

#[tokio::test]
async fn images_come_as_bytes_in_both_forms_of_a_tensor() {
    let server = Server::of(&images::repository()).await;
    let files = [[9, 99, 199], [250, 0, 3]].map(|colour| images::file(colour, ImageFormat::Png));
    let wanted = [[9, 99, 199], [250, 0, 3]].map(|colour| images::likeness(colour, 200.0));
    let prompts = vec![b"200".to_vec(), b"200".to_vec()];
    let bytes = |texts: &[Vec<u8>]| Some(Contents { texts: texts.to_vec(), ..Contents::default() });
    let plain = InferRequest {
        model_name: "likeness".to_owned(),
        id: String::new(),
        inputs: vec![tensor("prompt", "BYTES", &[2], bytes(&prompts)), tensor("image", "BYTES", &[2], bytes(&files))],
        outputs: vec![Wanted { name: "rewards".to_owned() }],
        ..InferRequest::default()
    };
    // Each element stands behind its length.
    let pack = |texts: &[Vec<u8>]| -> Vec<u8> {
        let element = |text: &Vec<u8>| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
        texts.iter().flat_map(element).collect()
    };
    let packed = InferRequest {
        inputs: vec![tensor("prompt", "BYTES", &[2], None), tensor("image", "BYTES", &[2], None)],
        packed: vec![pack(&prompts), pack(&files)],
        ..plain.clone()
    };
    for (request, is_packed) in [(&plain, false), (&packed, true)] {
        let reply: InferResponse = call(&server, INFER, request).await.unwrap();
        let scores: Vec<f32> = match is_packed {
            true => reply.packed[0].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            false => reply.outputs[0].contents.clone().unwrap().floats,
        };
        let close = scores.iter().zip(wanted).all(|(score, wanted)| (f64::from(*score) - wanted).abs() < 1e-4);
        assert!(close && scores.len() == 2, "{scores:?} is not {wanted:?}");
    }
    let mut broken = plain;
    broken.inputs[1] = tensor("image", "BYTES", &[2], bytes(&[files[0].clone(), files[1][..40].to_vec()]));
    assert_eq!(call::<InferResponse>(&server, INFER, &broken).await, Err(3), "invalid argument");
}

#[tokio::test]
async fn outcomes_name_a_request_by_the_id_of_its_reply() {
    let server = server().await;
    let texts = Contents { texts: vec![b"10 20".to_vec(), b"30".to_vec()], ..Contents::default() };
    for own in ["", "mine"] {
        let request = InferRequest {
            model_name: "chat".to_owned(),
            id: own.to_owned(),
            parameters: [("run".to_owned(), Parameter { text: "a".to_owned() })].into(),
            inputs: vec![tensor("text", "BYTES", &[2, 1], Some(texts.clone()))],
            ..InferRequest::default()
        };
        let reply: InferResponse = call(&server, INFER, &request).await.unwrap();
        assert!(own.is_empty() || reply.id == own, "{}", reply.id);
        let outcomes = json!({"outcomes": [{"request": reply.id, "index": 1, "value": true}]});
        let told = server.post_to("/v1/runs/a/outcomes", &outcomes).await;
        assert_eq!(told.body["accepted"], 1, "{own:?}: {}", told.text);
    }
    let request = InferRequest {
        model_name: "chat".to_owned(),
        parameters: [("run".to_owned(), Parameter { text: "a".to_owned() })].into(),
        inputs: vec![tensor("text", "BYTES", &[2, 1], Some(texts))],
        ..InferRequest::default()
    };
    let response = send(&server, INFER, &request, "identity").await;
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let reply = InferResponse::decode(&response.bytes().await.unwrap()[5..]).unwrap();
    assert_eq!(reply.id, id, "the message and its metadata tell one id");
}

#[tokio::test]
async fn what_is_wrong_has_its_code() {
    let server = server().await;
    let request = |model: &str, inputs: Vec<Tensor>| InferRequest {
        model_name: model.to_owned(),
        inputs,
        ..InferRequest::default()
    };
    let text = || tensor("text", "BYTES", &[1], Some(Contents { texts: vec![b"10".to_vec()], ..Contents::default() }));
    for (request, code) in [
        (request("nobody", vec![text()]), 5),
        (request("chat", vec![text(), text()]), 3),
        (request("chat", vec![tensor("text", "FP32", &[1], None)]), 3),
        (request("chat", Vec::new()), 3),
    ] {
        assert_eq!(call::<InferResponse>(&server, INFER, &request).await, Err(code), "{request:?}");
    }
    let unload = "/inference.GRPCInferenceService/RepositoryModelUnload";
    assert_eq!(call::<Name>(&server, unload, &Name::default()).await, Err(5));
}

#[tokio::test]
async fn health_is_told_in_both_protocols() {
    let server = server().await;
    let nameless = Name::default();
    for method in ["ServerLive", "ServerReady"] {
        let reply: Number =
            call(&server, &format!("/inference.GRPCInferenceService/{method}"), &nameless).await.unwrap();
        assert_eq!(reply.value, 1, "{method}");
    }
    let check = "/grpc.health.v1.Health/Check";
    for name in ["", "inference.GRPCInferenceService", "pair"] {
        let reply: Number = call(&server, check, &Name { name: name.to_owned() }).await.unwrap();
        assert_eq!(reply.value, 1, "{name:?} is serving");
    }
    assert_eq!(call::<Number>(&server, check, &Name { name: "nobody".to_owned() }).await, Err(5));
}

#[tokio::test]
async fn replies_go_compressed_to_those_who_ask() {
    let server = server().await;
    let texts = Contents { texts: vec![b"10 20".to_vec()], ..Contents::default() };
    let request = InferRequest {
        model_name: "chat".to_owned(),
        inputs: vec![tensor("text", "BYTES", &[1], Some(texts))],
        ..InferRequest::default()
    };
    let plain: InferResponse = call(&server, INFER, &request).await.unwrap();
    let response = send(&server, INFER, &request, "gzip").await;
    assert_eq!(response.headers()["grpc-encoding"], "gzip");
    let body = response.bytes().await.unwrap();
    assert_eq!(body[0], 1, "the frame says that it is compressed");
    let mut message = Vec::new();
    GzDecoder::new(&body[5..]).read_to_end(&mut message).unwrap();
    let found = InferResponse::decode(&*message).unwrap();
    assert_eq!(found.outputs, plain.outputs);
}

#[tokio::test]
async fn errors_are_counted_as_what_they_would_be_in_http() {
    let server = server().await;
    let request = InferRequest { model_name: "nobody".to_owned(), ..InferRequest::default() };
    assert_eq!(call::<InferResponse>(&server, INFER, &request).await, Err(5));
    let scrape = server.metrics.render().unwrap();
    let counted = |status: &str| {
        let label = format!("status=\"{status}\"");
        let mut lines = scrape.lines().filter(|line| line.starts_with("karat_http_requests_total{"));
        lines.find(|line| line.contains("GRPCInferenceService") && line.contains(&label)).map(str::to_owned)
    };
    assert!(counted("4xx").is_some_and(|line| line.ends_with(" 1")), "{scrape}");
    assert_eq!(counted("2xx"), None);
}
