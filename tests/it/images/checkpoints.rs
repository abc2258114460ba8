//! Checkpoints of models that see give what Transformers gives: within 1e-4 for pixels that are Pillow's to the bit, and
//! within 1e-3 for lossy WebP, which libwebp decodes with other roundings.

use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};

use super::data;
use crate::support::{Repository, Server, Unserved, root};

/// What `tests/images/record_models.py` wrote.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    prompt: Option<String>,
    image: String,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    logits: Vec<f64>,
}

fn cases(name: &str) -> Vec<Case> {
    let path = root().join("tests/images/checkpoints").join(name).join("scores.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn copy(repository: &Repository, name: &str, changed: &[(&str, &str)]) {
    for file in fs::read_dir(root().join("tests/images/checkpoints").join(name)).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "scores.json" {
            repository.write(name, &file.file_name().to_string_lossy(), fs::read(file.path()).unwrap());
        }
    }
    for (file, content) in changed {
        repository.write(name, file, content);
    }
}

fn image(name: &str) -> String {
    data(&fs::read(root().join("tests/images").join(name)).unwrap())
}

/// By how much a score may differ.
fn tolerance(file: &str) -> f64 {
    match file {
        // libwebp rounds a colour here and there otherwise.
        "lossy.webp" => 1e-3,
        _ => 1e-4,
    }
}

const VIT: &str =
    "head = { multi = { objectives = [\"one\", \"two\", \"three\"] } }\n[graph]\ncheckpoint = \".\"\n[image]\n";

async fn served() -> Server {
    let repository = Repository::empty();
    for name in ["clip", "clip-highest", "siglip"] {
        copy(&repository, name, &[]);
    }
    copy(&repository, "vit", &[("model.toml", VIT)]);
    let mut unserved = Unserved::new();
    unserved.limits.body_bytes = 1 << 20;
    unserved.limits.buffered_bytes = 8 << 20;
    unserved.load(&repository).await.unwrap();
    unserved.serve().await
}

#[tokio::test]
async fn images_and_texts_are_compared_as_in_transformers() {
    let server = served().await;
    for name in ["clip", "clip-highest", "siglip"] {
        let cases = cases(name);
        let input = |case: &Case| json!({"prompt": case.prompt, "image": image(&case.image)});
        let whole: Vec<Value> = cases.iter().map(input).collect();
        // All in company, and each by itself in another order: what is known must be what is computed.
        let reply = server.post(&json!({"model": name, "inputs": whole})).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        let found = reply.rewards();
        let alone = served().await;
        for (case, found) in cases.iter().zip(&found).rev() {
            let reply = alone.post(&json!({"model": name, "inputs": [input(case)]})).await;
            assert!((reply.rewards()[0] - found).abs() < 1e-4, "{name}: {}", reply.text);
        }
        for (case, found) in cases.iter().zip(found) {
            let wanted = case.score.unwrap();
            let difference = (found - wanted).abs();
            assert!(difference < tolerance(&case.image), "{name}, {}: {found} is not {wanted}", case.image);
        }
    }
}

#[tokio::test]
async fn a_classifier_gives_the_logits_of_transformers() {
    let server = served().await;
    for case in cases("vit") {
        let inputs = json!([{"image": image(&case.image)}]);
        let reply = server.post(&json!({"model": "vit", "inputs": inputs, "include": ["objectives"]})).await;
        for (name, wanted) in ["one", "two", "three"].iter().zip(case.logits) {
            let found = reply.body["results"][0]["objectives"][name].as_f64().unwrap();
            assert!((found - wanted).abs() < tolerance(&case.image), "{}: {found} is not {wanted}", case.image);
        }
    }
}

#[tokio::test]
async fn folders_that_can_not_be_served_say_so() {
    let repository = Repository::with_sum();
    let config = |name: &str| {
        fs::read_to_string(root().join("tests/images/checkpoints").join(name).join("config.json")).unwrap()
    };
    for (name, changed, needle) in [
        ("vit", vec![], "which of them is the reward"),
        (
            "clip",
            vec![("config.json", config("clip").replace("\"patch_size\": 8", "\"patch_size\": 7"))],
            "no multiple of patch_size",
        ),
        ("siglip", vec![("config.json", config("siglip").replace("\"siglip\"", "\"qwen2_5_vl\""))], "vision-language"),
        ("clip-highest", vec![("config.json", config("clip").replace("\"clip\"", "\"videomae\""))], "video"),
    ] {
        let changed: Vec<(&str, &str)> = changed.iter().map(|(file, content)| (*file, content.as_str())).collect();
        copy(&repository, name, &changed);
        let server = Server::of(&repository).await;
        let reply = server.get(&format!("/v1/models/{name}")).await;
        assert!(reply.body["reason"].as_str().is_some_and(|reason| reason.contains(needle)), "{name}: {}", reply.text);
    }
}
