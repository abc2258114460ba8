//! Rules over rewards of images: the same that texts have.

use serde_json::{Value, json};

use super::{add, cosine, likeness, likeness_manifest, means, means_manifest, png, repository};
use crate::support::{Repository, Server, graph_manifest, is_close};

const COLOURS: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]];

#[track_caller]
fn assert_close(actual: &[f64], expected: &[f64]) {
    let close = actual.iter().zip(expected).all(|(actual, expected)| is_close(*actual, *expected));
    assert!(close && actual.len() == expected.len(), "{actual:?} is not {expected:?}");
}

fn candidates() -> Vec<Value> {
    COLOURS.iter().map(|colour| json!({"image": png(*colour)})).collect()
}

/// The cosine of an image and a prompt of one number, as `likeness` scales it.
fn alike(colour: [u8; 3], number: f64) -> f64 {
    cosine(means(colour), [number / 1000.0, 1.0, 0.0])
}

#[tokio::test]
async fn the_models_of_a_composite_are_objectives_of_an_image() {
    let repository = repository();
    repository.write(
        "both",
        "model.toml",
        "aggregate = \"mean\"\n[[ensemble]]\nmodel = \"likeness\"\n[[ensemble]]\nmodel = \"brightness\"\n",
    );
    add(&repository, "brightness", &means_manifest("image_means"), &["image_means"]);
    let server = Server::of(&repository).await;
    let body = json!({"model": "both", "prompt": "200", "candidates": candidates(), "select": "pareto",
        "include": ["objectives"]});
    let reply = server.post_to("/v1/best-of-n", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let results = reply.body["results"].as_array().unwrap();
    let objectives: Vec<[f64; 2]> = results
        .iter()
        .map(|result| ["likeness", "brightness"].map(|name| result["objectives"][name].as_f64().unwrap()))
        .collect();
    assert_close(
        &objectives.iter().map(|both| both[0]).collect::<Vec<_>>(),
        &COLOURS.map(|colour| likeness(colour, 200.0)),
    );
    let beaten = |own: &[f64; 2]| {
        objectives.iter().any(|other| {
            let sides = || other.iter().zip(own);
            sides().all(|(other, own)| other >= own) && sides().any(|(other, own)| other > own)
        })
    };
    let front: Vec<usize> = (0..4).filter(|index| !beaten(&objectives[*index])).collect();
    assert_eq!(reply.body["pareto_front"], json!(front), "{}", reply.text);
    assert!(front.len() < 4, "{objectives:?}");
}

#[tokio::test]
async fn members_that_disagree_about_an_image_weigh_its_reward_down() {
    let repository = repository();
    add(&repository, "plain", &likeness_manifest("{}", ""), &["text_vectors", "image_vectors"]);
    let rule = "aggregate = { confidence_weighted = { uncertainty = \"range\" } }";
    repository.write(
        "unsure",
        "model.toml",
        format!("{rule}\n[[ensemble]]\nmodel = \"likeness\"\n[[ensemble]]\nmodel = \"plain\"\n"),
    );
    // Two likenesses of one model are members as well.
    let twofold = likeness_manifest("{ between = [\"image_image\", \"image_text\"] }", rule);
    add(&repository, "twofold", &twofold, &["text_vectors", "image_vectors"]);
    let server = Server::of(&repository).await;
    let weighed = |first: f64, second: f64| f64::midpoint(first, second) * (-(first - second).abs()).exp();

    let inputs: Vec<Value> = COLOURS.iter().map(|colour| json!({"prompt": "200", "image": png(*colour)})).collect();
    let reply = server.post(&json!({"model": "unsure", "inputs": inputs})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_close(&reply.rewards(), &COLOURS.map(|colour| weighed(likeness(colour, 200.0), alike(colour, 200.0))));

    // Of several references, the mean counts.
    let [ours, references @ ..] = [COLOURS[3], [200, 100, 0], [0, 40, 250]];
    let input = json!({"prompt": "200", "image": png(ours), "reference_images": references.map(png)});
    let reply = server.post(&json!({"model": "twofold", "inputs": [input]})).await;
    let like = references.map(|reference| cosine(means(ours), means(reference))).iter().sum::<f64>() / 2.0;
    assert_close(&reply.rewards(), &[weighed(like, alike(ours, 200.0))]);
}

#[tokio::test]
async fn a_segment_head_reads_texts_and_refuses_images() {
    let repository = Repository::with_sum();
    let head = "head = { segment = { weights = { object = 1.0 }, classes = [0.0, 1.0], read = \"likeliest\" } }";
    let marks = "step_mark = \"299\"\nstep_end = \" 299 \"\n";
    let manifest = graph_manifest(head, "steps").replace("\"raw\"", "\"pair\"") + marks;
    repository.add("segments", &manifest, &["steps"]);
    let seeing = format!("{head}\n[graph]\nfile = \"image_means.onnx\"\n[image]\n");
    add(&repository, "seeing", &seeing, &["image_means"]);
    let server = Server::of(&repository).await;
    // A segment's class is whether its last number is above 100.
    let body = json!({"model": "segments", "inputs": [{"prompt": "20", "steps": ["12 250", "60"]}]});
    let reply = server.post_to("/v1/process", &body).await;
    assert_eq!(reply.body["results"][0]["scores"], json!([1.0, 0.0]), "{}", reply.text);
    let image = json!({"prompt": "20", "image": png(COLOURS[0])});
    let reply = server.post(&json!({"model": "segments", "inputs": [image]})).await;
    reply.assert_problem(422, "invalid-request", "sees no images");
    let body = json!({"model": "segments", "inputs": [{"prompt": "20", "steps": ["12"], "image": png(COLOURS[0])}]});
    let reply = server.post_to("/v1/process", &body).await;
    assert!(reply.status == 422 && reply.text.contains("image"), "{}", reply.text);
    // FGAIF's own setting, segments of a text about an image, and a critique of an image want another kind of model.
    let shown = json!([{"role": "user", "content": [{"type": "image", "image": png(COLOURS[0])}]}]);
    let about = json!({"model": "segments", "inputs": [{"messages": shown, "steps": ["12"]}]});
    let critique = json!({"model": "segments", "prompt": "20", "response": {"image": png(COLOURS[0])}});
    for (path, body) in [("/v1/process", about), ("/v1/critique", critique)] {
        let reply = server.post_to(path, &body).await;
        assert!((400..500).contains(&reply.status) && reply.text.contains("vision-language"), "{path}: {}", reply.text);
    }
    let card = server.get("/v1/models/seeing").await.body;
    assert!(card["reason"].as_str().is_some_and(|reason| reason.contains("head")), "{card}");
}
