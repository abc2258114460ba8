use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::ImageFormat;
use serde_json::{Value, json};

use super::{add, cosine, data, file, likeness, likeness_manifest, means, means_manifest, png, repository};
use crate::support::{Repository, Server, Unserved, is_close};

#[track_caller]
fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{actual:?} is not {expected:?}");
    let close = actual.iter().zip(expected).all(|(actual, expected)| (actual - expected).abs() < 1e-5);
    assert!(close, "{actual:?} is not {expected:?}");
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

#[tokio::test]
async fn a_graph_that_mixes_the_images_of_a_batch_computes_each_alone() {
    let repository = repository();
    add(&repository, "centred", &means_manifest("image_centred"), &["image_centred"]);
    let server = Server::of(&repository).await;
    let sound = server.get("/v1/models/means").await.body["graphs"][0]["trial"].clone();
    let mixing = server.get("/v1/models/centred").await.body["graphs"][0]["trial"].clone();
    assert_eq!((&sound["company"], &sound["broken"]), (&json!("any"), &json!(false)), "{sound}");
    assert_eq!((&mixing["company"], &mixing["broken"]), (&json!("alone"), &json!(true)), "{mixing}");
    // Of an image alone the graph gives 0, and in a batch what the others make of it.
    let inputs: Vec<Value> =
        [[255, 0, 0], [0, 255, 0], [0, 0, 255]].map(|colour| json!({"image": png(colour)})).to_vec();
    let reply = server.post(&json!({"model": "centred", "inputs": inputs})).await;
    assert_close(&reply.rewards(), &[0.0; 3]);
}

#[tokio::test]
async fn a_model_is_held_to_the_scores_of_images_beside_it() {
    let repository = repository();
    let mean = means([51, 102, 204]).iter().sum::<f64>() / 3.0;
    let case = |reward: f64| json!({"tolerance": 1e-5, "cases": [{"image": "seen/one.png", "reward": reward}]});
    for (name, expected) in [
        ("right", case(mean)),
        ("wrong", case(mean + 0.01)),
        ("outside", json!({"tolerance": 1e-5, "cases": [{"image": "../right/seen/one.png", "reward": mean}]})),
        ("both", json!({"tolerance": 1e-5, "cases": [{"image": "seen/one.png", "response": "10", "reward": mean}]})),
        ("missing", json!({"tolerance": 1e-5, "cases": [{"image": "two.png", "reward": mean}]})),
        ("data", json!({"tolerance": 1e-5, "cases": [{"image": png([51, 102, 204]), "reward": mean}]})),
    ] {
        add(&repository, name, &means_manifest("image_means"), &["image_means"]);
        repository.write(name, "expected.json", expected.to_string());
        repository.write(name, "seen/one.png", file([51, 102, 204], ImageFormat::Png));
    }
    let ours = [9, 99, 199];
    let subject = likeness_manifest("{ between = [\"image_image\"] }", "");
    add(&repository, "subject", &subject, &["text_vectors", "image_vectors"]);
    repository.write("subject", "one.png", file(ours, ImageFormat::Png));
    repository.write("subject", "two.png", file([200, 100, 0], ImageFormat::Png));
    let like = cosine(means(ours), means([200, 100, 0]));
    let like = json!({"prompt": "", "image": "one.png", "reference_images": ["two.png"], "reward": like});
    repository.write("subject", "expected.json", json!({"tolerance": 1e-5, "cases": [like]}).to_string());
    let server = Server::of(&repository).await;
    for model in ["right", "data", "subject"] {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert_eq!((&card["status"], &card["references"]["count"]), (&json!("ready"), &json!(1)), "{card}");
    }
    for (model, needle) in [
        ("wrong", "1 of 1 scores differ"),
        ("outside", "outside the model's folder"),
        ("both", "\"image\" is the response"),
        ("missing", "two.png can't be read"),
    ] {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert!(card["reason"].as_str().is_some_and(|reason| reason.contains(needle)), "{model}: {card}");
    }
}

#[tokio::test]
async fn vllm_scores_images_for_texts() {
    let server = Server::of(&repository()).await;
    let colours = [[9, 99, 199], [250, 0, 3]];
    let shown = colours.map(|colour| {
        let text = json!({"type": "text", "text": ""});
        json!({"content": [text, {"type": "image_url", "image_url": {"url": png(colour)}}]})
    });
    let body = json!({"model": "likeness", "text_1": "200", "text_2": shown, "use_activation": false});
    let reply = server.post_to("/score", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let scores: Vec<f64> = [0, 1].map(|index| reply.body["data"][index]["score"].as_f64().unwrap()).to_vec();
    assert_close(&scores, &colours.map(|colour| likeness(colour, 200.0)));
    let url = json!({"content": [{"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}]});
    let video = json!({"content": [{"type": "video_url", "video_url": {"url": "https://images.example/a.mp4"}}]});
    for (one, two, needle) in [
        (json!("200"), url, "as data here"),
        (json!("200"), video, "video_url"),
        (shown[0].clone(), json!("A cat."), "vision-language"),
    ] {
        let reply = server.post_to("/score", &json!({"model": "likeness", "text_1": one, "text_2": two})).await;
        assert!(reply.status == 400 && reply.text.contains(needle), "{}", reply.text);
    }
}

#[tokio::test]
async fn what_ranks_texts_refuses_images_instead_of_leaving_them_out() {
    let server = Server::of(&repository()).await;
    let image = png([1, 2, 3]);
    let body = json!({"model": "sum", "query": "10", "documents": [{"text": "20", "image": image}]});
    for path in ["/vllm/rerank", "/jina/v1/rerank", "/cohere/v2/rerank"] {
        let reply = server.post_to(path, &body).await;
        assert!((400..500).contains(&reply.status) && reply.text.contains("no image"), "{path}: {}", reply.text);
    }
    let shown = json!([{"role": "user", "content": [{"type": "input_image", "image_url": image}]}]);
    let body = json!({"prompt": shown, "response": "A cat."});
    let reply = server.post_to("/m/sum/slime/scalar", &body).await;
    assert!((400..500).contains(&reply.status) && reply.text.contains("vision-language"), "{}", reply.text);
}
