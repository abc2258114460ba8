//! What models of several objectives tell beside their reward.

use super::*;

/// Objectives that a model's own code reports beside its reward.
#[tokio::test]
async fn heads_that_weigh_objectives_report_them() {
    let folders: Vec<PathBuf> =
        recorded().into_iter().filter(|folder| ["armorm", "qrm", "urm"].contains(&&*name(folder))).collect();
    assert_eq!(folders.len(), 3);
    let server = Server::of(&repository(&folders)).await;
    for folder in &folders {
        let (model, cases) = (name(folder), cases(folder));
        let inputs: Vec<Value> = cases.iter().map(input).collect();
        let reply = server.post(&json!({ "model": model, "inputs": inputs, "include": ["objectives"] })).await;
        for (result, case) in reply.body["results"].as_array().unwrap().iter().zip(&cases) {
            let wanted: Vec<f64> =
                case["objectives"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
            let found: Vec<f64> = (1..=wanted.len())
                .map(|number| result["objectives"][format!("objective-{number}")].as_f64().unwrap())
                .collect();
            assert_close(&model, &found, &wanted);
        }
    }
}

/// The distribution that a quantile model's own code reports, with a level of it as the reward.
#[tokio::test]
async fn quantiles_of_the_reward_are_weighed_like_the_reward() {
    let folder = root().join("tests/checkpoints/qrm");
    let repository = repository(std::slice::from_ref(&folder));
    let manifest = |reward: &str| {
        format!(
            "head = {{ quantile = {{ levels = [0.1, 0.3, 0.5, 0.7, 0.9], reward = {reward}, objectives = 3 }} }}\n[graph]\n\
             checkpoint = \"../qrm\"\noutput = [\"quantiles\", \"gates\"]\n[text]\nrender = \"chat_template\"\nmax_tokens = 256\n\
             gate_mark = \"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n\"\n"
        )
    };
    repository.write("mean", "model.toml", manifest("\"mean\""));
    repository.write("cautious", "model.toml", manifest("{ level = 0.1 }"));
    let server = Server::of(&repository).await;
    let cases = cases(&folder);
    let recorded: Vec<Vec<f64>> = serde_json::from_slice(&fs::read(folder.join("quantiles.json")).unwrap()).unwrap();
    let inputs: Vec<Value> = cases.iter().map(input).collect();
    for model in ["mean", "cautious"] {
        let reply = server.post(&json!({ "model": model, "inputs": inputs, "include": ["quantiles"] })).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        for ((result, case), recorded) in reply.body["results"].as_array().unwrap().iter().zip(&cases).zip(&recorded) {
            let quantiles = result["quantiles"].as_array().unwrap();
            let values: Vec<f64> = quantiles.iter().map(|quantile| quantile["reward"].as_f64().unwrap()).collect();
            assert_close(model, &values, recorded);
            assert_eq!((&quantiles[0]["level"], quantiles.len()), (&json!(0.1), 5));
            let reward = if model == "mean" { wanted(case) } else { vec![recorded[0]] };
            assert_close(model, &[result["reward"].as_f64().unwrap()], &reward);
        }
    }
}
