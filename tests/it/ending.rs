//! The end of a server: when it is told to stop, while requests are in flight, and how its clients learn of it.

use std::{net::TcpStream, time::Duration};

use karat::server::Drained;
use serde_json::{Value, json};

use crate::support::{Child, FakeModel, HeldDecoder, RawConnection, Repository, Server, Unserved, client, until};

fn score() -> Value {
    json!({"model": "sum", "inputs": [{"text": "10 11"}]})
}

#[tokio::test]
async fn who_is_about_to_end_is_not_ready_and_still_scores() {
    let server = Server::of(&Repository::with_sum()).await;
    assert_eq!(server.get("/health/ready").await.status, 200);
    server.closing.leave();
    let told = server.get("/health/ready").await;
    assert_eq!((told.status, &told.body["status"]), (503, &json!("leaving")));
    for path in ["/tei/health", "/v2/health/ready"] {
        assert_eq!(server.get(path).await.status, 503, "{path}");
    }
    for path in ["/health/live", "/v2/health/live"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let scored = server.post(&score()).await;
    // No connection is left idle, on which a client could send something while the server closes it.
    assert_eq!((scored.status, scored.header("connection")), (200, "close"));
    // In HTTP/2 a connection isn't closed by a header, and one there would be an error.
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let scored = http2.post(server.url("/v1/score")).json(&score()).send().await.unwrap();
    assert!(scored.status() == 200 && !scored.headers().contains_key("connection"));
}

#[tokio::test]
async fn what_is_in_flight_when_the_time_is_over_is_told_so() {
    let decoder = HeldDecoder::default();
    let unserved = Unserved { drain: Duration::ZERO, ..Unserved::new() };
    let model = FakeModel::serve_writing(unserved, |metrics| decoder.critic(metrics)).await;
    let body = json!({"model": "fake", "prompt": "10", "response": "11", "stream": true});
    let mut stream = client().post(model.server.url("/v1/critique")).json(&body).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    until("the critique is being written", || decoder.begun() == 1).await;
    let mut connection = RawConnection::open(model.server.address);
    connection.head("Content-Length: 100");
    connection.send(b"{\"model\": ");
    let in_flight = || model.server.metrics.render().unwrap().contains("karat_http_requests_in_flight 1");
    until("a body comes in part", in_flight).await;

    assert_eq!(model.server.stop().await, Drained::Overdue);
    connection.reply().await.assert_problem(503, "model-unavailable", "shutting down");
    let mut events = String::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        events.push_str(str::from_utf8(&chunk).unwrap());
    }
    assert!(events.contains("event: error") && events.contains("shutting down"), "{events}");
}

#[tokio::test]
async fn a_second_interrupt_ends_the_server_at_once() {
    let repository = Repository::with_sum();
    let child = Child::serve(&repository, &["--drain-seconds", "3600"]).await;
    child.ready().await;
    let mut connection = RawConnection::open(child.address);
    connection.head("Content-Length: 100");
    child.in_flight().await;
    child.signal("INT");
    until("no new connection is taken", || TcpStream::connect(child.address).is_err()).await;
    child.signal("INT");
    let finished = child.end().await;
    assert_eq!(finished.status.code(), Some(130), "{}", finished.stderr);
    assert!(finished.stderr.contains("told to stop again"), "{}", finished.stderr);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_still_takes_requests_for_a_while() {
    let repository = Repository::with_sum();
    let child = Child::serve(&repository, &["--ready-down-seconds", "3600"]).await;
    child.ready().await;
    // Nor does a terminal that hangs up end it.
    child.signal("HUP");
    child.logged("SIGHUP").await;
    assert_eq!(child.get("/health/ready").await.status, 200);
    child.signal("TERM");
    child.asked_until("/health/ready", |reply| reply.status == 503).await;
    assert_eq!(child.post(&score()).await.status, 200);
    // A person doesn't wait for balancers.
    child.signal("INT");
    assert_eq!(child.end().await.status.code(), Some(130));
}
