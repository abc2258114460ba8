//! `karat eval`: from preferences, and from scores that are stored.

use std::collections::BTreeMap;

use super::*;

fn eval(input: &Path, flags: &[&str]) -> Command {
    let mut command = karat(&["eval", input.to_str().unwrap()]);
    command.args(flags);
    command
}

#[tokio::test]
async fn transcripts_are_evaluated_as_the_dialogues_that_they_are() {
    let repository = Repository::empty();
    // The response's numbers alone make the score: a transcript that stayed one text would add its prompt's.
    let text = RAW.replace("\"raw\"", "{ jinja = \"{{ messages[-1].content }}\" }");
    repository.add("sum", &format!("[graph]\nfile = \"sum.onnx\"\n{text}"), &["sum"]);
    let (server, files) = (Server::of(&repository).await, Files::new());
    let side = |answer: &str| format!("\n\nHuman: 20\n\nAssistant: {answer}");
    let rows = [
        json!({"chosen": side("200"), "rejected": side("100")}),
        json!({"chosen": side("50"), "rejected": side("60")}),
    ];
    let input = files.write("hh.jsonl", &rows);
    let url = server.url("");
    let done = finish(eval(&input, &["--server", &url, "--model", "sum", "--json"])).await;
    assert!(done.status.success(), "{}", stderr(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let overall = report["parts"].as_object().unwrap().values().next().unwrap();
    assert_eq!((overall["items"].as_u64(), overall["accuracy"]["share"].as_f64()), (Some(2), Some(0.5)));
}

/// Four items in RewardBench 2's shape. By the sums of their numbers the first is right, in the second the right
/// response shares the first place with another one, in the tied prompt both right responses are above the wrong one by
/// 100 and within 10 of each other, and in its reference prompt the margin is 50.
fn reward_bench_2() -> Vec<Value> {
    let item = |id: &str, subset: &str, chosen: &[&str], rejected: &[&str]| {
        let (right, wrong) = (chosen.len(), rejected.len());
        json!({"id": id, "subset": subset, "prompt": "", "chosen": chosen, "rejected": rejected,
               "num_correct": right, "num_incorrect": wrong, "total_completions": right + wrong, "models": ["m"]})
    };
    vec![
        item("1", "Math", &["99"], &["10", "20", "30"]),
        item("2", "Math", &["40"], &["40", "20", "30"]),
        item("ref:1", "Ties", &["150"], &["100", "20"]),
        item("tied:1", "Ties", &["210", "200"], &["100"]),
    ]
}

#[test]
fn reward_bench_2_is_scored_and_its_scores_are_read_again() {
    let (repository, files) = (Repository::with_sum(), Files::new());
    let input = files.write("bench.jsonl", &reward_bench_2());
    let (scores, plot) = (files.path("scores.jsonl"), files.path("plot.svg"));
    let (scores_path, plot_path) = (scores.to_str().unwrap(), plot.to_str().unwrap());
    let models = repository.path().to_str().unwrap();
    let flags = ["--model", "sum", "--models", models, "--json", "--scores", scores_path, "--plot", plot_path];
    let done = eval(&input, &flags).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    for (pointer, expected) in [
        ("/parts/overall/accuracy/share", 0.75),
        ("/parts/Math/accuracy/share", 0.5),
        ("/parts/Math/accuracy_with_ties/share", 1.0),
        ("/parts/Math/mean_reciprocal_rank", 0.75),
        ("/reward_bench_2/subsets/Math", 0.75),
        // tanh(0.05 / 0.01 − 1) = 0.999329
        ("/reward_bench_2/subsets/Ties", 1.0 + 0.00999329),
    ] {
        assert!((number(pointer) - expected).abs() < 1e-5, "{pointer}: {} is not {expected}", number(pointer));
    }
    assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg"));

    let again = eval(&scores, &["--json"]).output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap(), report);
    let table = eval(&scores, &[]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("| Math | 2 | 50.0 (") && table.contains("RewardBench 2"), "{table}");
}

#[test]
fn published_scores_are_evaluated_without_a_model() {
    let files = Files::new();
    let published = json!({
        "model": "some/model",
        "subset": ["a", "a", "b"],
        "scores_chosen": [1.5, 0.5, 2.0],
        "scores_rejected": [1.0, 0.75, [1.0, 0.5]],
    });
    let input = files.write("published.json", &[published]);
    let done = eval(&input, &["--json"]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let shares: BTreeMap<&str, f64> =
        ["overall", "a", "b"].map(|part| (part, report["parts"][part]["accuracy"]["share"].as_f64().unwrap())).into();
    assert!(is_close(shares["overall"], 2.0 / 3.0) && is_close(shares["a"], 0.5) && is_close(shares["b"], 1.0));

    let unscored = files.write("pairs.jsonl", &[json!({"prompt": "", "chosen": "10", "rejected": "11"})]);
    let told = stderr(&eval(&unscored, &[]).output().unwrap());
    assert!(told.contains("--model"), "{told}");
}

#[test]
fn members_are_compared_side_by_side() {
    let (repository, files) = (Repository::empty(), Files::new());
    repository.add_graph("members", "head = { multi = { members = 3 } }");
    let pairs: Vec<Value> =
        [("20", "10"), ("30", "40")].map(|(c, r)| json!({"prompt": "", "chosen": c, "rejected": r})).into();
    let input = files.write("pairs.jsonl", &pairs);
    let models = repository.path().to_str().unwrap();
    let done = eval(&input, &["--model", "members", "--models", models, "--json"]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let rules: Vec<&String> = report["side_by_side"].as_object().unwrap().keys().collect();
    assert_eq!(rules, ["reward", "mean", "worst case", "member 0", "member 1", "member 2"]);
}
