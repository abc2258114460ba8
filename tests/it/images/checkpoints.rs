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

/// What was recorded in a folder below `tests/images`.
fn cases(folder: &str) -> Vec<Case> {
    let path = root().join("tests/images").join(folder).join("scores.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Adds the files of a folder below `tests/images` to those of a model.
fn add(repository: &Repository, model: &str, folder: &str) {
    for file in fs::read_dir(root().join("tests/images").join(folder)).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "scores.json" {
            repository.write(model, &file.file_name().to_string_lossy(), fs::read(file.path()).unwrap());
        }
    }
}

fn copy(repository: &Repository, name: &str, changed: &[(&str, &str)]) {
    add(repository, name, &format!("checkpoints/{name}"));
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

/// A classifier of three labels, whose logits are objectives.
const THREE: &str =
    "head = { multi = { objectives = [\"one\", \"two\", \"three\"] } }\n[graph]\ncheckpoint = \".\"\n[image]\n";

/// Heads over embeddings, and the checkpoints that they lie beside.
const HEADS: [(&str, &str); 4] =
    [("clip-linear", "clip"), ("clip-mlp", "clip"), ("clip-rectified", "clip"), ("siglip-mlp", "siglip")];

async fn served() -> Server {
    let repository = Repository::empty();
    for name in ["clip", "clip-highest", "siglip"] {
        copy(&repository, name, &[]);
    }
    for name in ["vit", "convnext", "convnextv2"] {
        copy(&repository, name, &[("model.toml", THREE)]);
    }
    copy(&repository, "aesthetic", &[]);
    for (head, base) in HEADS {
        add(&repository, head, &format!("checkpoints/{base}"));
        add(&repository, head, &format!("heads/{head}"));
    }
    add(&repository, "clip-lora", "adapters/clip-lora");
    for adapter in ["convnext-lora", "vit-lora"] {
        add(&repository, adapter, &format!("adapters/{adapter}"));
        repository.write(adapter, "model.toml", THREE);
    }
    let mut unserved = Unserved::new();
    unserved.limits.body_bytes = 1 << 20;
    unserved.limits.buffered_bytes = 8 << 20;
    unserved.load(&repository).await.unwrap();
    unserved.serve().await
}

#[tokio::test]
async fn images_and_texts_are_compared_as_in_transformers() {
    let server = served().await;
    for (name, folder) in [
        ("clip", "checkpoints/clip"),
        ("clip-highest", "checkpoints/clip-highest"),
        ("siglip", "checkpoints/siglip"),
        ("clip-lora", "adapters/clip-lora"),
    ] {
        let cases = cases(folder);
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
async fn classifiers_give_the_logits_of_transformers() {
    let server = served().await;
    for (model, folder) in [
        ("vit", "checkpoints/vit"),
        ("convnext", "checkpoints/convnext"),
        ("convnextv2", "checkpoints/convnextv2"),
        ("vit-lora", "adapters/vit-lora"),
        ("convnext-lora", "adapters/convnext-lora"),
    ] {
        let cases = cases(folder);
        let inputs: Vec<Value> = cases.iter().map(|case| json!({"image": image(&case.image)})).collect();
        let reply = server.post(&json!({"model": model, "inputs": inputs, "include": ["objectives"]})).await;
        assert_eq!(reply.status, 200, "{model}: {}", reply.text);
        for (case, result) in cases.iter().zip(reply.body["results"].as_array().unwrap()) {
            for (name, wanted) in ["one", "two", "three"].iter().zip(&case.logits) {
                let found = result["objectives"][name].as_f64().unwrap();
                let far = (found - wanted).abs() >= tolerance(&case.image);
                assert!(!far, "{model}, {}: {found} is not {wanted}", case.image);
            }
        }
    }
}

#[tokio::test]
async fn heads_over_embeddings_give_the_scores_of_pytorch() {
    let server = served().await;
    let heads = HEADS.map(|(head, _)| (head, format!("heads/{head}")));
    for (model, folder) in heads.into_iter().chain([("aesthetic", "checkpoints/aesthetic".to_owned())]) {
        let cases = cases(&folder);
        let inputs: Vec<Value> = cases.iter().map(|case| json!({"image": image(&case.image)})).collect();
        let reply = server.post(&json!({"model": model, "inputs": inputs})).await;
        assert_eq!(reply.status, 200, "{model}: {}", reply.text);
        for (case, found) in cases.iter().zip(reply.rewards()) {
            let wanted = case.score.unwrap();
            let far = (found - wanted).abs() >= tolerance(&case.image);
            assert!(!far, "{model}, {}: {found} is not {wanted}", case.image);
        }
    }
}

/// What an NVIDIA GPU computes of them by default, on the processor.
#[tokio::test]
async fn in_half_precision_scores_are_nearly_those_of_transformers() {
    const TOLERANCE: f64 = 1e-2;
    let repository = Repository::empty();
    let models = ["clip", "clip-highest", "siglip", "aesthetic", "vit", "convnext", "convnextv2"];
    for name in models {
        let classifies = ["vit", "convnext", "convnextv2"].contains(&name);
        copy(&repository, name, if classifies { &[("model.toml", THREE)] } else { &[] });
        repository.write_form(name, "half_rows");
    }
    let mut unserved = Unserved::new();
    (unserved.limits.body_bytes, unserved.limits.buffered_bytes) = (1 << 20, 8 << 20);
    unserved.load(&repository).await.unwrap();
    let server = unserved.serve().await;
    for model in models {
        let cases = cases(&format!("checkpoints/{model}"));
        let input = |case: &Case| match &case.prompt {
            Some(prompt) => json!({"prompt": prompt, "image": image(&case.image)}),
            None => json!({"image": image(&case.image)}),
        };
        let inputs: Vec<Value> = cases.iter().map(input).collect();
        let reply = server.post(&json!({"model": model, "inputs": inputs, "include": ["objectives"]})).await;
        assert_eq!(reply.status, 200, "{model}: {}", reply.text);
        let mut largest = 0.0_f64;
        for (case, result) in cases.iter().zip(reply.body["results"].as_array().unwrap()) {
            let found = |name: &&str| result["objectives"][name].as_f64().unwrap();
            let pairs: Vec<(f64, f64)> = match case.score {
                Some(wanted) => vec![(result["raw"].as_f64().unwrap(), wanted)],
                None => ["one", "two", "three"].iter().map(found).zip(case.logits.iter().copied()).collect(),
            };
            for (found, wanted) in pairs {
                let gap = (found - wanted).abs() / wanted.abs().max(1.0);
                assert!(gap <= TOLERANCE, "{model}, {}: {found} is not {wanted}", case.image);
                largest = largest.max(gap);
            }
        }
        // What one head reads changes its scores by little.
        assert!(largest > 1e-5 || model == "aesthetic", "{model} computes in 32 bits: {largest}");
    }
}

/// Tensors by their names, with their shapes.
type Shapes<'a> = &'a [(&'a str, &'a [usize])];

/// A file of safetensors that holds tensors of zeros.
fn zeros(tensors: Shapes<'_>) -> Vec<u8> {
    let (mut header, mut length) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let bytes = 4 * shape.iter().product::<usize>();
        header.insert(
            (*name).to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [length, length + bytes]}),
        );
        length += bytes;
    }
    let header = Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; length]].concat()
}

#[tokio::test]
async fn heads_that_are_not_known_are_refused_by_what_they_hold() {
    let repository = Repository::with_sum();
    let matrix: Shapes = &[("weight", &[1, 10]), ("bias", &[1])];
    let layers: Shapes = &[("layers.0.weight", &[4, 10]), ("layers.2.weight", &[1, 4])];
    let cases: [(&str, &str, Shapes<'_>, &str); 5] = [
        ("places", "clip", layers, "no file says what stood between them"),
        ("narrow", "clip", &[("weight", &[1, 9])], "[1, 9]"),
        ("several", "clip", &[("weight", &[3, 10]), ("bias", &[3])], "gives 3 numbers"),
        ("named", "clip", &[("v_head.weight", &[1, 10])], "v_head.weight"),
        ("two", "vit", matrix, "two heads"),
    ];
    for (model, base, head, _) in cases {
        add(&repository, model, &format!("checkpoints/{base}"));
        repository.write(model, "value_head.safetensors", zeros(head));
    }
    add(&repository, "none", "checkpoints/aesthetic");
    let path = root().join("tests/images/checkpoints/aesthetic/config.json");
    let config = fs::read_to_string(path).unwrap().replace("AestheticsPredictorV2Linear", "AnotherPredictor");
    repository.write("none", "config.json", config);
    let server = Server::of(&repository).await;
    let cases = cases.map(|(model, _, _, needle)| (model, needle));
    for (model, needle) in cases.into_iter().chain([("none", "\"AnotherPredictor\" is not known")]) {
        let reply = server.get(&format!("/v1/models/{model}")).await;
        assert!(reply.body["reason"].as_str().is_some_and(|reason| reason.contains(needle)), "{model}: {}", reply.text);
    }
}

#[tokio::test]
async fn adapters_that_change_what_a_model_that_sees_does_not_have_are_refused() {
    let repository = Repository::with_sum();
    for base in ["clip", "convnext"] {
        copy(&repository, base, &[]);
    }
    let config = fs::read_to_string(root().join("tests/images/adapters/clip-lora/adapter_config.json")).unwrap();
    for (model, base) in [("clip-lora", "clip"), ("second", "clip"), ("other", "convnext")] {
        add(&repository, model, "adapters/clip-lora");
        repository.write(model, "adapter_config.json", config.replace("\"clip\"", &format!("\"{base}\"")));
    }
    let both = "ensemble = { adapters = [\"../clip-lora\", \"../second\"] }\n[image]\n";
    repository.write("both", "model.toml", both);
    let server = Server::of(&repository).await;
    for (model, needle) in [("other", "which its base doesn't have"), ("both", "no graph in common")] {
        let reply = server.get(&format!("/v1/models/{model}")).await;
        assert!(reply.body["reason"].as_str().is_some_and(|reason| reason.contains(needle)), "{model}: {}", reply.text);
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
