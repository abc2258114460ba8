//! Traces: what a collector is sent, by both protocols, and that no text is in it.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, response::Response, routing::post};
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Child, Reply, Repository, client, karat};

// The messages of opentelemetry/proto/collector/trace/v1 as far as they are read here, by number.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span: Vec<u8>,
}

/// What a collector was sent, byte by byte.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Bytes>>>);

impl Collector {
    /// Listens, and gives the address.
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(take_call))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    fn spans(&self) -> Vec<Span> {
        let sent = self.0.lock().unwrap();
        let exports = sent.iter().map(|bytes| Export::decode(bytes.clone()).unwrap());
        let scopes = exports.flat_map(|export| export.resources).flat_map(|resource| resource.scopes);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    fn holds(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) {
    collector.0.lock().unwrap().push(body);
}

/// The same as a call of gRPC: a flag and a length before the message, and an empty message back.
async fn take_call(State(collector): State<Collector>, body: Bytes) -> Response {
    collector.0.lock().unwrap().push(body.slice(5..));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let reply = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(axum::body::Body::new(reply)).unwrap()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_collector_is_sent_a_span_for_each_stage_by_both_protocols() {
    let repository = Repository::with_sum();
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::default();
        let mut command = karat(&["serve", "--listen", "127.0.0.1:0", "--models"]);
        command.arg(repository.path());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.listen().await);
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let child = Child::start(command).await;
        child.ready().await;
        let score = async |flags: &str| {
            let body = json!({"model": "sum", "inputs": [{"text": "10 11"}, {"text": "12"}]});
            let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            let request = client().post(child.url("/v1/score")).header("traceparent", parent).json(&body);
            let reply = Reply::of(request).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            reply.header("traceresponse").to_owned()
        };
        let response = score("01").await;
        // Its client doesn't want this one kept.
        score("00").await;
        child.signal("TERM");
        let finished = child.end().await;
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);

        let spans = collector.spans();
        let request: Vec<&Span> = spans.iter().filter(|span| digits(&span.trace) == TRACE).collect();
        let named = |name: &str| {
            let mut found = request.iter().filter(|span| span.name == name);
            let span = *found.next().unwrap_or_else(|| panic!("no {name} in {spans:?}"));
            assert!(found.next().is_none(), "two of {name}");
            span.clone()
        };
        let whole = named("POST /v1/score");
        assert_eq!(digits(&whole.parent), "00f067aa0ba902b7");
        assert_eq!(response, format!("00-{TRACE}-{}-01", digits(&whole.id)));
        let stages = ["tokenise", "queue", "compute", "aggregate"].map(named);
        for stage in &stages {
            assert_eq!(stage.parent, whole.id, "{}", stage.name);
            assert!(whole.start <= stage.start && stage.start <= stage.end && stage.end <= whole.end, "{}", stage.name);
        }
        let batch = spans.iter().find(|span| span.name == "batch").unwrap();
        let linked = |stage: &Span| stage.links.iter().any(|link| link.span == batch.id && link.trace == batch.trace);
        assert_eq!(stages.iter().map(linked).collect::<Vec<_>>(), [false, true, true, false]);
        assert!(!collector.holds("10 11"), "texts are never sent");
    }
}

#[tokio::test]
async fn what_can_not_be_sent_is_told_and_a_collector_that_is_away_keeps_nobody() {
    let repository = Repository::with_sum();
    let serve = || {
        let mut command = karat(&["serve", "--listen", "127.0.0.1:0", "--models"]);
        command.arg(repository.path());
        command
    };
    let output = serve().env("OTEL_TRACES_EXPORTER", "zipkin").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("OTEL_TRACES_EXPORTER is \"zipkin\""), "{told}");

    let mut command = serve();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let child = Child::start(command).await;
    child.ready().await;
    let body = json!({"model": "sum", "inputs": [{"text": "10 11"}]});
    assert_eq!(child.post(&body).await.status, 200);
    child.signal("TERM");
    assert_eq!(child.end().await.status.code(), Some(0));
}
