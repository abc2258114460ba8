//! `POST /v1/metrics/{metric}`: one value of each metric from its paper's formula, and what is refused.

use serde_json::{Value, json};

use super::{INVALID, assert_number};
use crate::support::{Repository, Server};

async fn server() -> Server {
    Server::of(&Repository::with_sum()).await
}

async fn metric(server: &Server, name: &str, input: &Value) -> Value {
    let reply = server.post_to(&format!("/v1/metrics/{name}"), input).await;
    assert_eq!(reply.status, 200, "{name}: {}", reply.text);
    assert_eq!(reply.body["metric"], name);
    reply.body["result"].clone()
}

/// A metric, its input, and numbers of its result by JSON pointer.
type Golden = (&'static str, Value, &'static [(&'static str, f64)]);

fn golden() -> Vec<Golden> {
    let tied = json!({"right": [3, 2.5], "wrong": [1, 0]});
    vec![
        (
            "ranking_agreement",
            json!({"first": [0.1, 0.9, 0.4, 0.7, 0.2], "second": [0.2, 0.8, 0.6, 0.5, 0.1]}),
            &[("/tau_b", 0.6), ("/consistency", 0.8), ("/spearman", 0.8), ("/spearman_consistency", 0.9)],
        ),
        (
            "correlation",
            json!({"first": [1, 2, 3, 4], "second": [1, 4, 9, 16]}),
            &[("/pearson", 0.984374), ("/spearman", 1.0)],
        ),
        (
            "reward_distance",
            json!({"prompts": [{"first": [1, 2, 3, 4], "second": [2, 4, 6, 9]}]}),
            &[("/starc", 0.106050), ("/epic", 0.053025)],
        ),
        (
            "reward_math",
            json!({"items": [{"chosen": [0.6], "rejected": [0.7, 0.65]}]}),
            &[("/accuracy", 0.0), ("/mean_reciprocal_rank", 0.333333)],
        ),
        (
            "reward_bench_2",
            json!({"best_of": [{"right": 0.9, "wrong": [0.1, 0.9, 0.3]}],
                   "ties": [{"reference": {"right": [2], "wrong": [0, 1]}, "tied": tied}]}),
            &[("/best_of", 0.5), ("/ties/tied_accuracy", 1.0), ("/ties/score", 1.00761594)],
        ),
        (
            "calibration",
            json!({"probabilities": [0.2, 0.7, 0.8, 0.9], "outcomes": [false, true, true, false], "bins": 2}),
            &[("/expected_calibration_error", 0.15), ("/brier", 0.245)],
        ),
        (
            "preference_strength",
            json!({"pairs": [{"chosen": [1, 0.6, 1.4, 0.2], "rejected": [0.4, 0.9, 0.6, -0.1]}],
                   "cuts": {"strengths": {"flip": -1, "ambiguous": 0, "smooth": 1}}}),
            &[("/pairs/0/mean", 0.35), ("/pairs/0/deviation", 0.415331)],
        ),
        ("preference_loss", json!({"chosen": [0.35], "rejected": [0], "smoothing": 0.1}), &[("/loss", 0.568382)]),
        (
            "reward_difference",
            json!({"pairs": [{"first": 0.2, "second": 0, "log_ratios": [1.5, 0.7]}], "beta": 10}),
            &[("/targets/0", 0.02), ("/loss", 0.6084)],
        ),
        (
            "agreement_gate",
            json!({"pairs": [[0.8, 0.7], [0.9, 0.3]]}),
            &[("/pairs/0/half_divergence", 0.026950), ("/pairs/1/half_divergence", 0.913357)],
        ),
        ("balance_score", json!({"queries": [{"selected": 20, "right": 12}]}), &[("/score", 0.6)]),
        (
            "tournament",
            json!({"preferences": [[0.5, 0.7, 0.4], [0.3, 0.5, 0.8], [0.6, 0.2, 0.5]]}),
            &[("/win_rates/0", 0.55), ("/win_rates/2", 0.4), ("/copeland/1", 1.0), ("/circular_triads", 1.0)],
        ),
    ]
}

#[tokio::test]
async fn every_metric_gives_its_golden_value() {
    let server = server().await;
    let golden = golden();
    let named: Vec<&str> = golden.iter().map(|(name, ..)| *name).collect();
    let known: Vec<&str> = karat_rules::metrics::CATALOGUE.entries.iter().map(|entry| entry.name).collect();
    assert_eq!(named, known);
    for (name, input, expected) in golden {
        let result = metric(&server, name, &input).await;
        for (pointer, value) in expected {
            let found = result.pointer(pointer).unwrap_or_else(|| panic!("{name}: no {pointer} in {result}"));
            assert_number(found, *value);
        }
    }
}

#[tokio::test]
async fn a_metric_that_is_not_there_is_told_with_those_that_are() {
    let reply = server().await.post_to("/v1/metrics/charm", &json!({})).await;
    reply.assert_problem(404, "unknown-route", "ranking_agreement");
}

#[tokio::test]
async fn bad_input_is_refused() {
    let server = server().await;
    for (name, input, needle) in [
        ("ranking_agreement", json!({"first": [1, 2], "second": [1]}), "send as many"),
        ("ranking_agreement", json!({"first": [1], "second": [1]}), "at least 2"),
        ("ranking_agreement", json!({"first": [1, null], "second": [1, 2]}), "null"),
        ("correlation", json!({"first": [1, 2], "third": [1, 2]}), "third"),
        ("correlation", json!([1, 2]), "expected an object"),
        ("balance_score", json!({"queries": [{"selected": 1, "right": 2}]}), "2"),
        ("agreement_gate", json!({"pairs": [[1.0, 0.5]]}), "between 0 and 1"),
        ("preference_loss", json!({"chosen": [-1.7e308], "rejected": [1.7e308]}), "smaller magnitude"),
        ("calibration", json!({"probabilities": [0.5], "outcomes": [true], "bins": 0}), "bins"),
    ] {
        let reply = server.post_to(&format!("/v1/metrics/{name}"), &input).await;
        reply.assert_problem(422, INVALID, needle);
    }
}

/// Half of the pairs of neighbours are swapped: of n(n-1)/2 pairs, n/2 disagree.
#[tokio::test]
async fn long_lists_are_answered() {
    let server = server().await;
    let first: Vec<usize> = (0..6_000).collect();
    let second: Vec<usize> = first.iter().map(|place| place ^ 1).collect();
    let input = json!({"first": first, "second": second});
    let (result, health) = tokio::join!(metric(&server, "ranking_agreement", &input), server.get("/health/live"));
    assert_number(&result["tau_b"], 1.0 - 2.0 / 5_999.0);
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn huge_scores_are_answered() {
    let input = json!({"first": [1e30, -1e30, 5e-324, 0], "second": [2e30, -2e30, 1e-300, 0]});
    let result = metric(&server().await, "ranking_agreement", &input).await;
    assert_number(&result["tau_b"], 1.0);
}
