//! Of a language model that is asked for a few tokens' logits no others are computed.

use super::*;

/// How many logits a model's graph gives.
async fn width(server: &Server, model: &str) -> Value {
    let card = server.get(&format!("/v1/models/{model}")).await.body;
    let outputs = card["graphs"][0]["signature"]["outputs"].as_array().unwrap_or_else(|| panic!("{card}")).clone();
    outputs.iter().find(|output| output["name"] == "logits").unwrap()["shape"][1].clone()
}

#[tokio::test]
async fn logits_that_nobody_reads_are_not_computed() {
    const VOCABULARY: usize = 264;
    // A logit, two at each step, and a judge's answers.
    let models = [("nemotron-reward", 1), ("math-shepherd", 2), ("qwen3-reranker", 2)];
    let folders: Vec<PathBuf> =
        recorded().into_iter().filter(|folder| models.iter().any(|(model, _)| *model == name(folder))).collect();
    let repository = repository(&folders);
    for folder in &folders {
        let writing = format!("{}-writing", name(folder));
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            repository.write(&writing, &name(&file), fs::read(&file).unwrap());
        }
        let manifest = fs::read_to_string(folder.join("model.toml")).unwrap();
        let critique = "\n[critique]\nrequest = \"{prompt} {response}\"\nmax_tokens = 4\n";
        repository.write(&writing, "model.toml", manifest + critique);
    }
    // Each is held to what Transformers makes of its texts when it is loaded.
    let server = Server::of(&repository).await;
    for (model, few) in models {
        assert_eq!(width(&server, model).await, few, "{model}");
        assert_eq!(width(&server, &format!("{model}-writing")).await, VOCABULARY, "{model} writes any token");
    }
}
