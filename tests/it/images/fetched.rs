//! Images by URL, from a server of the test's own.

use axum::{Router, http::StatusCode, response::Redirect, routing::get};
use image::ImageFormat;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{file, png, repository};
use crate::support::{Reply, Server, Unserved};

/// A server of images, and one of karat's that may fetch from it alone.
async fn served() -> (String, Server) {
    let images = Router::new()
        .route("/red.png", get(|| async { file([255, 0, 0], ImageFormat::Png) }))
        .route("/moved.png", get(|| async { Redirect::temporary("/red.png") }))
        .route("/none.png", get(|| async { StatusCode::NOT_FOUND }))
        .route("/huge.png", get(|| async { vec![0; (32 << 20) + 1] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, images).await.unwrap() });
    let mut unserved = Unserved::new();
    unserved.image_hosts = vec![host.parse().unwrap()];
    unserved.load(&repository()).await.unwrap();
    (host, unserved.serve().await)
}

async fn ask(server: &Server, url: &str) -> Reply {
    let input: Value = json!({"image": url});
    server.post(&json!({"model": "means", "inputs": [input]})).await
}

#[tokio::test]
async fn an_image_of_a_named_host_is_scored_like_the_same_as_data() {
    let (host, server) = served().await;
    let fetched = ask(&server, &format!("http://{host}/red.png")).await;
    assert_eq!(fetched.status, 200, "{}", fetched.text);
    assert_eq!(fetched.rewards(), ask(&server, &png([255, 0, 0])).await.rewards());
    let part = json!({"type": "image_url", "image_url": {"url": format!("http://{host}/red.png")}});
    let turns = json!([{"role": "assistant", "content": [part]}]);
    let reply = server.post(&json!({"model": "means", "inputs": [{"messages": turns}]})).await;
    assert_eq!(reply.rewards(), fetched.rewards());
    let body = json!({"model": "means", "prompt": "", "candidates": [{"image": format!("http://{host}/red.png")}]});
    assert_eq!(server.post_to("/v1/best-of-n", &body).await.status, 200);
}

#[tokio::test]
async fn nothing_else_is_fetched() {
    let (host, server) = served().await;
    let port = host.rsplit(':').next().unwrap();
    for (url, needle) in [
        (format!("http://{host}/moved.png"), "redirects are not followed"),
        (format!("http://{host}/none.png"), "404"),
        (format!("http://{host}/huge.png"), "bytes"),
        (format!("http://localhost:{port}/red.png"), "--fetch-images"),
        ("http://127.0.0.1:1/red.png".to_owned(), "--fetch-images"),
        ("http://169.254.169.254/latest".to_owned(), "--fetch-images"),
    ] {
        ask(&server, &url).await.assert_problem(422, "invalid-request", needle);
    }
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_not_asked() {
    let (host, _) = served().await;
    let port = host.rsplit(':').next().unwrap();
    let mut unserved = Unserved::new();
    unserved.image_hosts = vec![format!("localhost:{port}").parse().unwrap()];
    unserved.load(&repository()).await.unwrap();
    let server = unserved.serve().await;
    let reply = ask(&server, &format!("http://localhost:{port}/red.png")).await;
    reply.assert_problem(422, "invalid-request", "can't be fetched");
}
