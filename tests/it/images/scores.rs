use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::ImageFormat;
use serde_json::{Value, json};

use super::{add, data, file, likeness_manifest, means, means_manifest, png, repository};
use crate::support::{Repository, Server, Unserved, is_close};

#[track_caller]
fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{actual:?} is not {expected:?}");
    let close = actual.iter().zip(expected).all(|(actual, expected)| (actual - expected).abs() < 1e-5);
    assert!(close, "{actual:?} is not {expected:?}");
}

fn cosine(a: [f64; 3], b: [f64; 3]) -> f64 {
    let dot = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// What `likeness` gives an image of one colour for a prompt of one number.
fn likeness(colour: [u8; 3], number: f64) -> f64 {
    10.0 * cosine(means(colour), [number / 1000.0, 1.0, 0.0]) - 1.0
}

#[tokio::test]
async fn channels_are_scaled_and_ordered_as_the_preprocessor_and_the_graph_say() {
    let server = Server::of(&repository()).await;
    let colours = [[255, 0, 0], [10, 200, 90], [0, 0, 255]];
    for model in ["means", "means_last"] {
        let inputs: Vec<Value> = colours.iter().map(|colour| json!({"image": png(*colour)})).collect();
        let body = json!({"model": model, "inputs": inputs, "include": ["objectives"]});
        let reply = server.post(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        for (result, colour) in reply.body["results"].as_array().unwrap().iter().zip(colours) {
            let objectives = ["red", "green", "blue"].map(|name| result["objectives"][name].as_f64().unwrap());
            assert_close(&objectives, &means(colour));
        }
        let usage = &reply.body["usage"];
        assert_eq!((usage["tokens"].as_u64(), usage["cached_tokens"].as_u64()), (Some(3), Some(0)));
        let again = server.post(&body).await;
        assert_eq!(again.body["usage"]["cached_tokens"], 3);
        assert_eq!(again.rewards(), reply.rewards());
    }
}

#[tokio::test]
async fn an_image_is_compared_with_its_prompt_which_is_computed_once() {
    let server = Server::of(&repository()).await;
    let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]];
    let inputs: Vec<Value> = colours.iter().map(|colour| json!({"prompt": "200", "image": png(*colour)})).collect();
    let reply = server.post(&json!({"model": "likeness", "inputs": inputs})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_close(&reply.rewards(), &colours.map(|colour| likeness(colour, 200.0)));
    // Each image is one token and each prompt is one; three of four prompts needed no pass.
    let usage = &reply.body["usage"];
    assert_eq!((usage["tokens"].as_u64(), usage["cached_tokens"].as_u64()), (Some(8), Some(3)));
    let other = json!({"model": "likeness", "inputs": [{"prompt": "10", "image": png(colours[0])}]});
    let reply = server.post(&other).await;
    assert_close(&reply.rewards(), &[likeness(colours[0], 10.0)]);
    assert_eq!(reply.body["usage"]["cached_tokens"], 1, "the image was known");
}

#[tokio::test]
async fn images_are_candidates_and_sides_of_a_pair() {
    let server = Server::of(&repository()).await;
    let images = [[255, 0, 0], [0, 255, 0], [0, 0, 255]].map(png);
    let candidates: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
    let body = json!({"model": "likeness", "prompt": "200", "candidates": candidates});
    let reply = server.post_to("/v1/best-of-n", &body).await;
    assert_eq!((reply.status, reply.body["best"].as_u64()), (200, Some(1)), "{}", reply.text);
    let pair = json!({"prompt": "200", "chosen": {"image": images[1]}, "rejected": {"image": images[0]}});
    let reply = server.post_to("/v1/compare", &json!({"model": "likeness", "beta": 10, "pairs": [pair]})).await;
    let margin = likeness([0, 255, 0], 200.0) - likeness([255, 0, 0], 200.0);
    let result = &reply.body["results"][0];
    assert_close(
        &[result["margin"].as_f64().unwrap(), result["reward_difference"].as_f64().unwrap()],
        &[margin, margin / 10.0],
    );
    // Objectives that no candidate beats in all: red, green and blue are each best at one.
    let body = json!({"model": "means", "prompt": "", "candidates": candidates, "select": "pareto"});
    let reply = server.post_to("/v1/best-of-n", &body).await;
    assert_eq!(reply.body["pareto_front"], json!([0, 1, 2]), "{}", reply.text);
}

#[tokio::test]
async fn turns_hold_images_in_every_dialect() {
    let server = Server::of(&repository()).await;
    let image = png([9, 99, 199]);
    let expected = likeness([9, 99, 199], 200.0);
    for part in [
        json!({"type": "image_url", "image_url": {"url": image}}),
        json!({"type": "image_url", "image_url": image}),
        json!({"type": "image", "image": image}),
    ] {
        let turns = json!([{"role": "user", "content": [{"type": "text", "text": "200"}]}, {"role": "assistant", "content": [part]}]);
        let reply = server.post(&json!({"model": "likeness", "inputs": [{"messages": turns}]})).await;
        assert_close(&reply.rewards(), &[expected]);
        let reply = server.post_to("/classify", &json!({"model": "likeness", "messages": turns})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let tensor = |name: &str, value: &str| json!({"name": name, "shape": [1], "datatype": "BYTES", "data": [value]});
    let body = json!({"inputs": [tensor("prompt", "200"), tensor("image", &image)]});
    let reply = server.post_to("/v2/models/likeness/infer", &body).await;
    let rewards = reply.body["outputs"].as_array().unwrap().iter().find(|output| output["name"] == "rewards").unwrap();
    assert_close(&[rewards["data"][0].as_f64().unwrap()], &[expected]);
    // The file itself, behind its length.
    let bytes = file([9, 99, 199], ImageFormat::Png);
    let packed = |part: &[u8]| [&u32::try_from(part.len()).unwrap().to_le_bytes()[..], part].concat();
    let (prompt, picture) = (packed(b"200"), packed(&bytes));
    let binary = |name: &str, size: usize| json!({"name": name, "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}});
    let head = json!({"inputs": [binary("prompt", prompt.len()), binary("image", picture.len())]}).to_string();
    let request = server.client.post(server.url("/v2/models/likeness/infer"));
    let request = request.header("Inference-Header-Content-Length", head.len().to_string());
    let reply = request.body([head.as_bytes(), &prompt, &picture].concat()).send().await.unwrap();
    let reply: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_close(&[reply["outputs"][0]["data"][0].as_f64().unwrap()], &[expected]);
}

#[tokio::test]
async fn both_likenesses_make_one_reward_by_the_harmonic_mean() {
    let repository = repository();
    let rules = "aggregate = { harmonic = { lambda = 0.3 } }";
    let manifest = likeness_manifest("{ between = [\"image_image\", \"image_text\"] }", rules);
    add(&repository, "subject", &manifest, &["text_vectors", "image_vectors"]);
    let server = Server::of(&repository).await;
    let [ours, reference] = [[9, 99, 199], [200, 100, 0]];
    let input = json!({"prompt": "200", "image": png(ours), "reference_images": [png(reference)]});
    let reply = server.post(&json!({"model": "subject", "inputs": [input]})).await;
    let unit = |cosine: f64| f64::midpoint(cosine, 1.0);
    let (a, b) = (unit(cosine(means(ours), means(reference))), unit(cosine(means(ours), [0.2, 1.0, 0.0])));
    assert_close(&reply.rewards(), &[1.0 / (0.3 / (a + 1e-8) + 0.7 / (b + 1e-8))]);
}

#[tokio::test]
async fn what_a_model_does_not_take_is_told() {
    let server = Server::of(&repository()).await;
    let image = png([1, 2, 3]);
    for (model, input, needle) in [
        ("sum", json!({"image": image}), "sees no images"),
        ("means", json!({"text": "10"}), "rates images"),
        ("means", json!({"prompt": "10", "response": "11"}), "rates images"),
        ("likeness", json!({"text": "10"}), "rates images"),
        ("likeness", json!({"image": image}), "as \"prompt\""),
        ("likeness", json!({"prompt": "10", "image": image, "reference_images": [image]}), "no other one"),
        ("means", json!({"image": image, "reference_images": [image]}), "by itself"),
        ("means", json!({"image": "https://images.example/a.png"}), "--fetch-images"),
        ("means", json!({"image": "data:video/mp4;base64,AAAA"}), "video"),
        ("means", json!({"image": data(b"GIF89a")}), "can't be decoded"),
        ("means", json!({"image": data(b"BM and more")}), "PNG, JPEG, WebP or GIF"),
        ("means", json!({"image": data(b"")}), "empty"),
    ] {
        let reply = server.post(&json!({"model": model, "inputs": [input]})).await;
        reply.assert_problem(422, "invalid-request", needle);
    }
    let about = json!({"messages": [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A cat."}
    ]});
    server.post(&json!({"model": "sum", "inputs": [about]})).await.assert_problem(
        422,
        "invalid-request",
        "vision-language",
    );
}

#[tokio::test]
async fn manifests_that_do_not_fit_their_graphs_say_what_to_write() {
    let repository = Repository::with_sum();
    let large = PREPROCESSOR_OF_SIX;
    for (name, manifest, graphs, needle) in [
        (
            "no-image",
            likeness_manifest("{}", "").replace("[image]\n", ""),
            vec!["text_vectors", "image_vectors"],
            "add [image]",
        ),
        (
            "no-images",
            likeness_manifest("{}", "").replace("images = \"image_vectors.onnx\"\n", ""),
            vec!["text_vectors"],
            "graph.images",
        ),
        (
            "both",
            likeness_manifest("{}", "").replace("likeness = {}", "scalar = {}"),
            vec!["text_vectors", "image_vectors"],
            "likeness",
        ),
        (
            "judge",
            means_manifest("image_means")
                .replace("multi = { objectives = [\"red\", \"green\", \"blue\"] }", "token = {}"),
            vec!["image_means"],
            "head",
        ),
        ("text-graph", means_manifest("sum"), vec!["sum"], "pixel_values"),
        ("large", means_manifest("image_means_last"), vec!["image_means_last"], "image.preprocessor"),
    ] {
        add(&repository, name, &manifest, &graphs);
        repository.write("large", "preprocessor_config.json", large);
        let unserved = Unserved::new();
        unserved.load(&repository).await.unwrap();
        let server = unserved.serve().await;
        let reply = server.get(&format!("/v1/models/{name}")).await;
        assert!(reply.body["reason"].as_str().is_some_and(|reason| reason.contains(needle)), "{name}: {}", reply.text);
    }
}

const PREPROCESSOR_OF_SIX: &str = r#"{"size": {"height": 6, "width": 6}, "resample": 2, "do_normalize": false}"#;

#[tokio::test]
async fn what_is_sent_as_another_type_is_read_by_its_bytes() {
    let server = Server::of(&repository()).await;
    for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
        let image = format!("data:text/plain;base64,{}", BASE64_STANDARD.encode(file([51, 102, 204], format)));
        let reply = server.post(&json!({"model": "means", "inputs": [{"image": image}]})).await;
        let mean = means([51, 102, 204]).iter().sum::<f64>() / 3.0;
        assert!(is_close(reply.rewards()[0], mean) || (reply.rewards()[0] - mean).abs() < 1e-2, "{}", reply.text);
    }
}
