//! What becomes of what waits and runs when the server has no more time for it.

use std::sync::Arc;

use karat_engine::repository::{Listed, ModelStatus};
use serde_json::{Value, json};

use crate::support::{FakeModel, HeldDecoder, Reply, Repository, Unserved, client, until};

fn post(model: &FakeModel, path: &str, body: &Value) -> tokio::task::JoinHandle<Reply> {
    tokio::spawn(Reply::of(client().post(model.server.url(path)).json(body)))
}

#[tokio::test]
async fn a_critique_that_is_being_written_does_not_outlast_the_server() {
    let decoder = HeldDecoder::default();
    let model = FakeModel::serve_writing(Unserved::new(), |metrics| decoder.critic(metrics)).await;
    let body = json!({"model": "fake", "prompt": "10", "response": "11"});
    let written = post(&model, "/v1/critique", &body);
    until("the critique is being written", || decoder.begun() == 1).await;
    // Only one is written at a time.
    let waiting = post(&model, "/v1/critique", &body);
    until("both are being answered", || {
        model.server.metrics.render().unwrap().contains("karat_http_requests_in_flight 2")
    })
    .await;

    model.server.engine.repository().stop();
    for reply in [written, waiting] {
        until("the client is told", || reply.is_finished()).await;
        reply.await.unwrap().assert_problem(503, "model-unavailable", "shutting down");
    }
    let engine = Arc::clone(&model.server.engine);
    let ended = tokio::task::spawn_blocking(move || engine.repository().drain());
    until("every thread ends", || ended.is_finished()).await;
    // What comes now is refused, not begun.
    post(&model, "/v1/critique", &body).await.unwrap().assert_problem(503, "model-unavailable", "shutting down");
    assert_eq!(decoder.begun(), 1);
}

#[tokio::test]
async fn a_model_that_still_loads_when_the_server_ends_never_begins_to_serve() {
    let repository = Repository::with_sum();
    let unserved = Unserved::new();
    unserved.engine.repository().stop();
    unserved.load(&repository).await.unwrap();
    assert!(matches!(
        unserved.engine.repository().models().values().next(),
        Some(Listed { status: ModelStatus::Loading, .. })
    ));

    // One that was about to become ready takes nothing, and its threads end.
    let decoder = HeldDecoder::default();
    let late = Unserved::new();
    late.engine.repository().stop();
    let model = FakeModel::serve_writing(late, |metrics| decoder.critic(metrics)).await;
    let told = [
        post(&model, "/v1/score", &json!({"model": "fake", "inputs": [{"text": "10"}]})),
        post(&model, "/v1/critique", &json!({"model": "fake", "prompt": "10", "response": "11"})),
    ];
    for reply in told {
        reply.await.unwrap().assert_problem(503, "model-unavailable", "shutting down");
    }
    let engine = Arc::clone(&model.server.engine);
    let ended = tokio::task::spawn_blocking(move || engine.repository().drain());
    until("every thread ends", || ended.is_finished()).await;
}
