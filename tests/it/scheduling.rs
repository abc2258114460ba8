//! What waits, is shared, is given up, and what a forward pass is spent on.
//!
//! The model's passes are held at a gate, so that what happens meanwhile happens for certain.

use std::sync::Arc;

use karat_engine::schedule::QueueLimits;
use reqwest::Client;
use serde_json::{Value, json};

use crate::support::{FakeModel, RawConnection, Reply, client, until};

/// A model whose gate is closed, with one pass held at it.
struct Busy {
    model: Arc<FakeModel>,
    blocker: tokio::task::JoinHandle<Reply>,
}

impl Busy {
    /// Holds a pass for the text `10`; `queued_tokens` may wait behind it.
    async fn new(queued_tokens: usize) -> Self {
        let model = FakeModel::serve(QueueLimits { queued_tokens, ..QueueLimits::default() }).await;
        model.control.close();
        let model = Arc::new(model);
        let blocker = tokio::spawn(send(&model, &["10"], None));
        model.held().await;
        Self { model, blocker }
    }

    /// Opens the gate; the pass that was held gives its score. Returns every sample that a pass was spent on.
    async fn finish(self) -> Vec<Vec<u32>> {
        self.model.control.open();
        assert_eq!(self.blocker.await.unwrap().status, 200);
        self.model.server.engine.repository().drain();
        self.model.passed()
    }
}

fn body(texts: &[&str], timeout_ms: Option<u64>) -> Value {
    let inputs: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    json!({"model": "fake", "inputs": inputs, "timeout_ms": timeout_ms})
}

/// A request by a client of its own, so that dropping it closes its connection.
fn send(model: &FakeModel, texts: &[&str], timeout_ms: Option<u64>) -> impl Future<Output = Reply> + use<> {
    Reply::of(client().post(model.server.url("/v1/score")).json(&body(texts, timeout_ms)))
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_refused_whole() {
    let busy = Busy::new(4).await;
    let model = &busy.model;
    let fits = tokio::spawn(send(model, &["20 21", "22"], None));
    until("two samples wait", || model.waiting() == 2).await;

    // One of the two would still fit.
    let refused = send(model, &["30", "31 32"], None).await;
    refused.assert_problem(429, "overloaded", "3 tokens wait already; try again in");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(model.waiting(), 2, "nothing of a refused request waits");
    assert_eq!(model.server.metric("karat_samples_refused_total{model=\"fake\"}"), 2);

    let small = tokio::spawn(send(model, &["40"], None));
    until("a third sample waits", || model.waiting() == 3).await;
    let mut passed = busy.finish().await;
    assert_eq!((fits.await.unwrap().status, small.await.unwrap().status), (200, 200));
    passed.sort();
    assert_eq!(passed, [vec![10], vec![20, 21], vec![22], vec![40]]);
}

#[tokio::test]
async fn a_request_whose_time_is_up_costs_no_pass() {
    let busy = Busy::new(1000).await;
    let late = send(&busy.model, &["20"], Some(30)).await;
    late.assert_problem(504, "deadline-passed", "allow more time");
    let patient = tokio::spawn(send(&busy.model, &["30"], Some(600_000)));
    until("the patient one waits", || busy.model.waiting() == 1).await;
    assert_eq!(busy.finish().await, [[10], [30]]);
    assert_eq!(patient.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_work() {
    let http_1 = Client::builder().no_proxy().http1_only().build().unwrap();
    let http_2 = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [http_1, http_2] {
        let busy = Busy::new(1000).await;
        let model = Arc::clone(&busy.model);
        // Over HTTP/2 the connection outlives the request: only its stream is reset.
        assert_eq!(client.get(model.server.url("/health/live")).send().await.unwrap().status(), 200);
        let request = client.post(model.server.url("/v1/score")).json(&body(&["20", "21"], None)).send();
        let waiting = tokio::spawn(request);
        until("two samples wait", || model.waiting() == 2).await;
        waiting.abort();
        until("nothing waits", || model.waiting() == 0).await;
        assert_eq!(model.server.metric("karat_samples_cancelled_total{model=\"fake\"}"), 2);
        assert_eq!(busy.finish().await, [[10]]);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_frees_its_work() {
    let busy = Busy::new(1000).await;
    let model = Arc::clone(&busy.model);
    let body = body(&["20", "21"], None).to_string();
    let mut connection = RawConnection::open(model.server.address);
    connection.head(&format!("Content-Length: {}", body.len()));
    connection.send(body.as_bytes());
    until("two samples wait", || model.waiting() == 2).await;
    drop(connection);
    until("nothing waits", || model.waiting() == 0).await;
    assert_eq!(busy.finish().await, [[10]]);
}

#[tokio::test]
async fn a_running_pass_is_stopped_when_its_last_client_leaves() {
    let Busy { model, blocker } = Busy::new(1000).await;
    blocker.abort();
    let control = model.control.clone();
    tokio::task::spawn_blocking(move || control.wait_for_cancelled(1)).await.unwrap();
    model.control.open();
    assert_eq!(send(&model, &["20"], None).await.status, 200, "the worker goes on");
    let counted = || model.server.metric("karat_forward_passes_cancelled_total{model=\"fake\"}");
    assert_eq!(counted(), 1);
}

#[tokio::test]
async fn two_clients_with_the_same_text_share_a_pass() {
    let busy = Busy::new(1000).await;
    let model = Arc::clone(&busy.model);
    let joined = || model.server.metric("karat_cache_hits_total{model=\"fake\"}");
    let first = tokio::spawn(send(&model, &["20 21"], None));
    until("the first waits", || model.waiting() == 1).await;
    let second = tokio::spawn(send(&model, &["20 21"], None));
    until("the second joins it", || joined() == 1).await;
    let third = tokio::spawn(send(&model, &["20 21"], None));
    until("the third joins them", || joined() == 2).await;

    // The one that started the pass leaves; the others still get their score.
    first.abort();
    until("the first has gone", || {
        model.server.metric("karat_http_requests_total{route=\"/v1/score\",status=\"left\"}") == 1
    })
    .await;
    assert_eq!(model.waiting(), 1);
    assert_eq!(busy.finish().await, [vec![10], vec![20, 21]]);
    let replies = [second.await.unwrap(), third.await.unwrap()];
    let expected = f64::from(karat_runtime::fake::score(&[20, 21]));
    for reply in replies {
        assert_eq!(reply.rewards(), [expected]);
        assert_eq!(reply.body["usage"], json!({"tokens": 2, "cached_tokens": 2}));
    }
}

#[tokio::test]
async fn a_sample_that_fails_leaves_its_neighbours_alone() {
    let busy = Busy::new(1000).await;
    let model = Arc::clone(&busy.model);
    model.control.fail_on(66);
    model.control.panic_on(77);
    let texts = ["20", "66", "30", "77"];
    let mut requests = Vec::new();
    for (count, text) in texts.iter().enumerate() {
        requests.push(tokio::spawn(send(&model, &[text], None)));
        until("it waits", || model.waiting() == count + 1).await;
    }
    let batches = {
        busy.finish().await;
        model.control.batches()
    };
    assert_eq!(batches[1].len(), 4, "all shared one pass at first: {batches:?}");
    let mut replies = Vec::new();
    for request in requests {
        replies.push(request.await.unwrap());
    }
    assert_eq!([replies[0].status, replies[2].status], [200, 200]);
    replies[1].assert_problem(500, "model-failed", "the model fake failed in its forward pass");
    replies[3].assert_problem(500, "internal", "the server's log has the cause");
    for reply in [&replies[1], &replies[3]] {
        assert!(!reply.text.contains("told to"), "what the runtime says is for the log: {}", reply.text);
    }
}
