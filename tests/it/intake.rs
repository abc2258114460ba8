//! Clients that send slowly, or less than they announced, keep neither a connection nor memory for ever.

use std::{io, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::Request;
use http_body_util::BodyExt;
use karat_engine::schedule::QueueLimits;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::support::{FakeModel, RawConnection, Reply, Unserved, client, until};

/// A body of one byte every so often, without an end.
fn trickle(pause: Duration) -> Body {
    Body::from_stream(unfold((), move |()| async move {
        sleep(pause).await;
        Some((Ok::<_, io::Error>(Bytes::from_static(b" ")), ()))
    }))
}

/// A body that stops in its middle.
fn stalled(beginning: &'static [u8]) -> Body {
    Body::from_stream(unfold(true, move |first| async move {
        if !first {
            std::future::pending::<()>().await;
        }
        Some((Ok::<_, io::Error>(Bytes::from_static(beginning)), false))
    }))
}

/// Posts a body to a server without models; only the time that can pass by itself passes.
async fn post(path: &str, kind: &str, body: Body) -> (Response, Duration) {
    let begun = Instant::now();
    let request = Request::post(path).header("content-type", kind).body(body).unwrap();
    let response = Unserved::new().routes().oneshot(request).await.unwrap();
    (response, begun.elapsed())
}

/// The paths of karat and of every dialect.
const PATHS: [&str; 14] = [
    "/v1/score",
    "/v1/best-of-n",
    "/get_reward",
    "/classify",
    "/rerank",
    "/v1/embeddings",
    "/v1/score/evaluation",
    "/slime/scalar",
    "/verify",
    "/predict",
    "/cohere/v2/rerank",
    "/jina/v1/rerank",
    "/v1/ranking",
    "/v2/models/any/infer",
];

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_whole_in_time_is_refused_on_every_route() {
    for path in PATHS {
        for body in [stalled(b"{\"model\":"), trickle(Duration::from_secs(10)), trickle(Duration::from_millis(900))] {
            let (response, waited) = post(path, "application/json", body).await;
            assert_eq!(response.status(), 408, "{path}");
            assert!((Duration::from_secs(60)..Duration::from_secs(62)).contains(&waited), "{path}: {waited:?}");
            let told = response.into_body().collect().await.unwrap().to_bytes();
            let told = str::from_utf8(&told).unwrap();
            assert!(told.contains("60 s") && told.contains("--receive-seconds"), "{path}: {told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_grpc_that_does_not_come_whole_in_time_is_refused() {
    let path = "/inference.GRPCInferenceService/ModelInfer";
    // A message of 9 bytes that isn't compressed; none of them comes.
    let (response, waited) = post(path, "application/grpc", stalled(&[0, 0, 0, 0, 9])).await;
    assert!(waited < Duration::from_secs(62), "{waited:?}");
    let code = response.headers()["grpc-status"].to_str().unwrap();
    assert_ne!(code, "0");
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert!(message.contains("--receive-seconds"), "{message}");
}

/// A model behind a gate, and a server that waits for 50 ms.
async fn hurried() -> FakeModel {
    let mut unserved = Unserved::new();
    unserved.limits.receive = Duration::from_millis(50);
    FakeModel::serve_with(QueueLimits::default(), unserved).await
}

/// A model behind a gate, and a server with room for 4 KiB of bodies.
async fn small() -> FakeModel {
    let mut unserved = Unserved::new();
    unserved.limits.buffered_bytes = 4 << 10;
    FakeModel::serve_with(QueueLimits::default(), unserved).await
}

/// Beyond this a body is read away from the threads that answer everybody.
const LARGE: usize = 300 << 10;

#[tokio::test]
async fn a_large_body_gets_the_answer_of_a_small_one() {
    let mut unserved = Unserved::new();
    unserved.limits.body_bytes = 1 << 20;
    let model = FakeModel::serve_with(QueueLimits::default(), unserved).await;
    let answer = async |path: &str, body: String| {
        let request = client().post(model.server.url(path)).header("x-request-id", "one").body(body);
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    };
    let bodies = [
        r#"{"model": "fake", "inputs": [{"text": "11 12"}]}"#,
        r#"{"model": "fake", "query": ["11 12", "13"]}"#,
        r#"{"model": "fake", "inputs": 7}"#,
        r#"{"model": fake}"#,
    ];
    for path in PATHS {
        for body in bodies {
            let large = format!("{body}{}", " ".repeat(LARGE));
            // Scores are known by then, which replies tell.
            answer(path, body.to_owned()).await;
            assert_eq!(answer(path, large).await, answer(path, body.to_owned()).await, "{path}: {body}");
        }
    }
    let scored = |body: &Value| Reply::of(client().post(model.server.url("/v1/score")).body(body.to_string()));
    let mut many = body("11 12");
    many["inputs"] = json!(vec![json!({"text": "11 12"}); LARGE / 16]);
    assert!(many.to_string().len() > LARGE);
    let (one, many) = (scored(&body("11 12")).await, scored(&many).await);
    assert_eq!((one.status, many.status), (200, 422));
    many.assert_problem(422, "too-many-inputs", "--max-inputs");
}

fn body(text: &str) -> Value {
    json!({"model": "fake", "inputs": [{"text": text}]})
}

#[tokio::test]
async fn silent_connections_are_closed_and_patient_ones_are_not() {
    let model = hurried().await;
    model.control.close();
    let address = model.server.address;
    // Its answer takes far longer than its client may be silent.
    let patient = tokio::spawn(client().post(model.server.url("/v1/score")).json(&body("10")).send());
    model.held().await;
    for sent in
        ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/score HTTP/1.1\r\nHost: ", "GET /health/live HTTP/1.1\r\n\r\n"]
    {
        let mut connection = RawConnection::open(address);
        connection.send(sent.as_bytes());
        connection.closed().await;
    }
    model.control.open();
    assert_eq!(patient.await.unwrap().unwrap().status(), 200);
}

/// The beginning of a body that announces more than ever comes, and sends so many bytes of it.
fn half(server: &crate::support::Server, announced: usize, sent: usize) -> RawConnection {
    let mut connection = RawConnection::open(server.address);
    connection.head(&format!("Content-Length: {announced}"));
    connection.send(&b" ".repeat(sent));
    connection
}

#[tokio::test]
async fn bodies_beyond_the_room_wait_until_others_are_gone() {
    let model = small().await;
    let server = &model.server;
    let waiting = |count| until("bodies wait", move || server.metric("karat_http_bodies_waiting") == count);
    // The second finds no room for its second half, whichever of the two is heard first.
    let first = half(server, 4096, 3000);
    let second = half(server, 4096, 3000);
    waiting(1).await;
    let whole = tokio::spawn(client().post(server.url("/v1/score")).json(&body("10")).send());
    waiting(2).await;
    // A request without a body needs no room.
    assert_eq!(server.get("/v1/models").await.status, 200);
    drop(first);
    drop(second);
    assert_eq!(whole.await.unwrap().unwrap().status(), 200);
    waiting(0).await;
}

#[tokio::test]
async fn what_is_only_announced_takes_no_room() {
    let model = small().await;
    let silent: Vec<_> = (0..32).map(|_| half(&model.server, 4096, 0)).collect();
    let reply = client().post(model.server.url("/v1/score")).json(&body("10")).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    drop(silent);
}

#[tokio::test]
async fn a_body_of_unknown_length_keeps_only_the_room_that_it_took() {
    let model = small().await;
    model.control.close();
    let chunked = |text: &str| {
        let text = body(text).to_string();
        let mut connection = RawConnection::open(model.server.address);
        connection.head("Transfer-Encoding: chunked");
        connection.send(format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()).as_bytes());
        connection.reply()
    };
    let first = tokio::spawn(chunked("10"));
    model.held().await;
    // While the first is unanswered, three more of 1 KiB at most fit beside it.
    let others = ["11", "12", "13"].map(|text| {
        let request = client().post(model.server.url("/v1/score")).json(&body(text));
        tokio::spawn(request.send())
    });
    until("three more wait for a pass", || model.waiting() == 3).await;
    model.control.open();
    assert_eq!(first.await.unwrap().status, 200);
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_costs_its_client_no_answer() {
    let server = Unserved::new().serve().await;
    // Neither is read by whoever answers: the one path isn't there, the other's limit is 64 KiB.
    for (path, status) in [("/nothing", 404), ("/v1/score", 413)] {
        let mut connection = RawConnection::open(server.address);
        connection
            .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 8 << 20).as_bytes());
        let sending = tokio::task::spawn_blocking(move || {
            connection.send(&vec![b' '; 8 << 20]);
            connection
        });
        let reply = sending.await.expect("the connection lasts until the body is sent").reply().await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }
}
