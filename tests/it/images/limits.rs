//! What images may cost, and what is counted of them.

use std::io::Cursor;

use image::{GrayImage, ImageFormat};
use serde_json::{Value, json};

use super::{add, data, likeness, likeness_manifest, png, repository};
use crate::support::{Server, Unserved};

/// An image of more than two million pixels.
fn large() -> String {
    let mut bytes = Vec::new();
    let image = GrayImage::from_pixel(1500, 1500, [77].into());
    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    data(&bytes)
}

#[tokio::test]
async fn images_are_counted_by_what_they_cost_and_by_their_refusals() {
    let server = Server::of(&repository()).await;
    let red = json!({"image": png([255, 0, 0])});
    for _ in 0..2 {
        let reply = server.post(&json!({"model": "means", "inputs": [red]})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    for broken in [&b"BM and more"[..], b"GIF89a", b""] {
        server.post(&json!({"model": "means", "inputs": [{"image": data(broken)}]})).await;
    }
    // A model that sees nothing has refused no image by its bytes.
    server.post(&json!({"model": "sum", "inputs": [red]})).await;
    let metric = |name: &str| server.metric(&format!("{name}{{model=\"means\"}}"));
    // Nine by five pixels, decoded once: the second time its score was known.
    assert_eq!(metric("karat_image_pixels_total"), 45);
    assert_eq!(metric("karat_image_decode_seconds_count"), 1);
    assert_eq!(metric("karat_image_resize_seconds_count"), 1);
    assert_eq!(metric("karat_images_refused_total"), 3);
    assert_eq!((metric("karat_cache_hits_total"), metric("karat_cache_misses_total")), (1, 1));
    assert_eq!(server.metric("karat_images_refused_total{model=\"sum\"}"), 0);
}

#[tokio::test]
async fn an_image_is_decoded_once_whatever_it_comes_with() {
    let repository = repository();
    let manifest = likeness_manifest("{ between = [\"image_image\"] }", "");
    add(&repository, "subject", &manifest, &["text_vectors", "image_vectors"]);
    let server = Server::of(&repository).await;
    let decoded = |model: &str| server.metric(&format!("karat_image_decode_seconds_count{{model=\"{model}\"}}"));
    let image = large();
    for prompt in ["200", "10", "200"] {
        let reply = server.post(&json!({"model": "likeness", "inputs": [{"prompt": prompt, "image": image}]})).await;
        assert!((reply.rewards()[0] - likeness([77; 3], prompt.parse().unwrap())).abs() < 1e-5, "{}", reply.text);
    }
    assert_eq!(decoded("likeness"), 1);
    let subject = [png([200, 100, 0])];
    let inputs = [[9, 99, 199], [250, 0, 3], [0, 0, 0]]
        .map(|colour| json!({"prompt": "", "image": png(colour), "reference_images": subject}));
    let reply = server.post(&json!({"model": "subject", "inputs": inputs})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(decoded("subject"), 4);
}

#[tokio::test]
async fn images_that_nobody_waits_for_any_more_are_not_decoded() {
    let mut unserved = Unserved::new();
    unserved.limits.body_bytes = 4 << 20;
    unserved.limits.buffered_bytes = 16 << 20;
    unserved.load(&repository()).await.unwrap();
    let server = unserved.serve().await;
    let image = large();
    let inputs = |count: usize| -> Vec<Value> { (0..count).map(|_| json!({"image": image})).collect() };
    let late = server.post(&json!({"model": "means", "inputs": inputs(64), "timeout_ms": 20})).await;
    late.assert_problem(504, "deadline-passed", "allow more time");
    // It waits for a core until those that decode are done with what they have begun.
    let patient = server.post(&json!({"model": "means", "inputs": inputs(1)})).await;
    assert_eq!(patient.status, 200, "{}", patient.text);
    let decoded = server.metric("karat_image_decode_seconds_count{model=\"means\"}");
    assert!(decoded < 32, "{decoded} of 65 were decoded");
}

#[tokio::test]
async fn texts_beside_images_have_no_session_that_spins_on_all_cores() {
    let server = Server::of(&repository()).await;
    let calibration = |name: &str| {
        let url = format!("/v1/models/{name}");
        let server = &server;
        async move { server.get(&url).await.body["graphs"][0]["calibration"].clone() }
    };
    let (alone, beside) = (calibration("sum").await, calibration("likeness").await);
    assert_eq!((&beside["threads"], &beside["lone_threads"]), (&json!(1), &Value::Null), "{beside}");
    assert!(alone["lone_threads"].is_number() || alone["sessions"] == 1, "{alone}");
}
