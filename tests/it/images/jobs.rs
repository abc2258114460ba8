//! Images in the rows of jobs: as data they are scored, and by URL a row is refused.

use std::time::Duration;

use serde_json::{Value, json};

use super::{likeness, png, repository};
use crate::support::{Reply, Server, is_close};

#[tokio::test]
async fn rows_hold_images_as_data() {
    let server = Server::of(&repository()).await;
    let colours = [[9, 99, 199], [250, 0, 3]];
    let part = json!({"type": "image_url", "image_url": {"url": png(colours[1])}});
    let turns = json!([{"role": "user", "content": "200"}, {"role": "assistant", "content": [part]}]);
    let rows = [
        json!({"prompt": "200", "image": png(colours[0])}),
        json!({"messages": turns}),
        json!({"prompt": "200", "image": "data:image/png;base64,iVBORw0KGgo="}),
    ];
    let head = json!({"model": "likeness"});
    let body: String = [&head].into_iter().chain(&rows).map(|line| format!("{line}\n")).collect();
    let accepted = Reply::of(server.client.post(server.url("/v1/jobs")).body(body)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let id = accepted.body["id"].as_str().unwrap();
    let mut job = Value::Null;
    for _ in 0..600 {
        job = server.get(&format!("/v1/jobs/{id}")).await.body;
        if !job["ended"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((&job["done"], &job["failed"]), (&json!(3), &json!(1)), "{job}");
    let results = server.get(&format!("/v1/jobs/{id}/results")).await;
    let results: Vec<Value> = results.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (result, colour) in results.iter().zip(colours) {
        assert!(is_close(result["reward"].as_f64().unwrap(), likeness(colour, 200.0)), "{result}");
    }
    assert!(results[2]["error"]["detail"].as_str().unwrap().contains("can't be decoded"), "{}", results[2]);
}

#[tokio::test]
async fn rows_that_name_an_image_by_url_are_refused_when_they_arrive() {
    let server = Server::of(&repository()).await;
    let body = "{\"model\":\"means\"}\n{\"image\":\"https://images.example/a.png\"}\n";
    let reply = Reply::of(server.client.post(server.url("/v1/jobs")).body(body)).await;
    reply.assert_problem(422, "invalid-request", "row 0");
    assert!(reply.text.contains("as data here"), "{}", reply.text);
}
