//! Scores that lie beside a model hold it to its reference.

use super::*;

#[tokio::test]
async fn scores_that_lie_beside_a_model_are_compared_when_it_is_loaded() {
    let folders: Vec<PathBuf> = recorded()
        .into_iter()
        .filter(|folder| ["bert", "mistral", "qwen2-math-prm"].contains(&&*name(folder)))
        .collect();
    let repository = repository(&folders);
    let mistral = &folders[1];
    let expected: Value = serde_json::from_slice(&fs::read(mistral.join("expected.json")).unwrap()).unwrap();
    let copy = |model: &str, expected: Option<&Value>| {
        for file in fs::read_dir(mistral).unwrap().map(|entry| entry.unwrap().path()) {
            if name(&file) != "expected.json" {
                repository.write(model, &name(&file), fs::read(&file).unwrap());
            }
        }
        if let Some(expected) = expected {
            repository.write(model, "expected.json", expected.to_string());
        }
    };
    copy("unknown", None);
    let reward = expected["cases"][1]["reward"].as_f64().unwrap();
    let mut wrong = expected.clone();
    wrong["cases"][1]["reward"] = json!(reward + 0.01);
    copy("wrong", Some(&wrong));
    wrong["cases"][1]["tokens"][3] = json!(7);
    copy("wrong-text", Some(&wrong));
    wrong["tolerance"] = json!(0.02);
    copy("tolerated", Some(&wrong));
    copy("empty", Some(&json!({"tolerance": 1e-4, "cases": []})));
    copy("stepless", Some(&json!({"tolerance": 1e-4, "cases": [{"response": "Yes.", "steps": [0.5]}]})));
    copy("shapeless", Some(&json!({"tolerance": 1e-4, "cases": [{"prompt": "Why?", "reward": 0.5}]})));
    copy("misspelt", Some(&json!({"tolerance": 1e-4, "cases": [{"response": "Yes.", "score": 0.5}]})));
    repository.write("composite", "model.toml", "[[ensemble]]\nmodel = \"mistral\"\n");
    repository.write("composite", "expected.json", expected.to_string());

    let server = Server::of(&repository).await;
    for (model, count) in [("bert", 4), ("mistral", 4), ("qwen2-math-prm", 4), ("composite", 4), ("tolerated", 4)] {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert_eq!(card["references"]["count"], count, "{card}");
        let difference = card["references"]["largest_difference"].as_f64().unwrap();
        assert!(
            if model == "tolerated" { (difference - 0.01).abs() < TOLERANCE } else { difference < TOLERANCE },
            "{card}"
        );
    }
    assert_eq!(server.get("/v1/models/unknown").await.body["references"], Value::Null);
    for (model, parts) in [
        ("wrong", &["1 of 4 scores", "case 2 by 1.000e-2", "the tokens are the same"][..]),
        ("wrong-text", &["first the one after 3", "where the reference has 7"]),
        ("empty", &["keep 1 to 64"]),
        ("stepless", &["case 1", "write \"reward\""]),
        ("shapeless", &["case 1", "\"response\""]),
        ("misspelt", &["expected.json", "score"]),
    ] {
        let card = server.get(&format!("/v1/models/{model}")).await.body;
        assert_eq!(card["status"], "failed", "{card}");
        for part in parts {
            assert!(card["reason"].as_str().unwrap().contains(part), "{part:?} is not in {card}");
        }
    }
}
