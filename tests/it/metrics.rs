//! Metrics are a contract: their names and labels are these, and labels have closed sets of values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{Repository, Server};

/// Every metric with its type and labels.
const CONTRACT: [(&str, &str, &[&str]); 62] = [
    ("karat_backlog_samples", "gauge", &[]),
    ("karat_batch_padding_ratio", "histogram", &["model"]),
    ("karat_batch_samples", "histogram", &["model"]),
    ("karat_build_info", "gauge", &["version"]),
    ("karat_cache_bytes", "gauge", &[]),
    ("karat_cache_hits_total", "counter", &["model"]),
    ("karat_cache_misses_total", "counter", &["model"]),
    ("karat_doubled_beginnings_total", "counter", &["model"]),
    ("karat_forward_pass_seconds", "histogram", &["model"]),
    ("karat_forward_passes_cancelled_total", "counter", &["model"]),
    ("karat_forward_passes_failed_total", "counter", &["model"]),
    ("karat_forward_passes_out_of_memory_total", "counter", &["model"]),
    ("karat_forward_passes_running", "gauge", &["model"]),
    ("karat_generated_tokens_total", "counter", &["model"]),
    ("karat_generating_texts", "gauge", &["model"]),
    ("karat_generations_cancelled_total", "counter", &["model"]),
    ("karat_generations_refused_total", "counter", &["model"]),
    ("karat_http_bodies_waiting", "gauge", &[]),
    ("karat_http_request_seconds", "histogram", &["route"]),
    ("karat_http_requests_in_flight", "gauge", &[]),
    ("karat_http_requests_total", "counter", &["route", "status"]),
    ("karat_image_decode_seconds", "histogram", &["model"]),
    ("karat_image_pixels_total", "counter", &["model"]),
    ("karat_image_resize_seconds", "histogram", &["model"]),
    ("karat_images_refused_total", "counter", &["model"]),
    ("karat_job_rows", "gauge", &[]),
    ("karat_model_state", "gauge", &["model", "state"]),
    ("karat_model_weight_bytes", "gauge", &["model"]),
    ("karat_packed_blocks_evicted_total", "counter", &["model"]),
    ("karat_packed_blocks_free", "gauge", &["model"]),
    ("karat_packed_blocks_kept", "gauge", &["model"]),
    ("karat_packed_blocks_used", "gauge", &["model"]),
    ("karat_packed_pass_sequences", "histogram", &["model"]),
    ("karat_packed_pass_tokens", "histogram", &["model"]),
    ("karat_padding_tokens_total", "counter", &["model"]),
    ("karat_prefix_cache_bytes", "gauge", &[]),
    ("karat_prefix_cache_evicted_blocks_total", "counter", &[]),
    ("karat_prefix_cached_tokens_total", "counter", &["model"]),
    ("karat_prefix_computed_tokens_total", "counter", &["model"]),
    ("karat_prefix_hits_total", "counter", &["model"]),
    ("karat_prefix_tokens_total", "counter", &["model"]),
    ("karat_queue_samples", "gauge", &["model"]),
    ("karat_queue_tokens", "gauge", &["model"]),
    ("karat_queue_wait_seconds", "histogram", &["model"]),
    ("karat_run_disagreement", "gauge", &["model", "run"]),
    ("karat_run_response_characters", "gauge", &["model", "run"]),
    ("karat_run_reward", "gauge", &["model", "run"]),
    ("karat_run_samples_dropped_total", "counter", &[]),
    ("karat_run_samples_total", "counter", &[]),
    ("karat_run_signal", "gauge", &["model", "run", "signal"]),
    ("karat_run_signal_firing", "gauge", &["model", "run", "signal"]),
    ("karat_run_worst_case_gap", "gauge", &["model", "run"]),
    ("karat_runs", "gauge", &[]),
    ("karat_runs_bytes", "gauge", &[]),
    ("karat_runs_evicted_total", "counter", &[]),
    ("karat_sample_disagreement", "histogram", &["model"]),
    ("karat_sample_reward", "histogram", &["model"]),
    ("karat_samples_cancelled_total", "counter", &["model"]),
    ("karat_samples_expired_total", "counter", &["model"]),
    ("karat_samples_refused_total", "counter", &["model"]),
    ("karat_samples_truncated_total", "counter", &["model"]),
    ("karat_tokens_total", "counter", &["model"]),
];

/// A scrape: the type of each metric, and the values of each of its labels.
#[derive(Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    labels: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if let Some((sample, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                assert!(value.parse::<f64>().is_ok(), "{line}");
                scrape.add(sample);
            }
        }
        scrape
    }

    fn add(&mut self, sample: &str) {
        let (name, labels) =
            sample.split_once('{').map_or((sample, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|part| name.strip_suffix(part))
            .find(|family| self.types.get(*family).is_some_and(|kind| kind == "histogram"))
            .unwrap_or(name);
        let seen = self.labels.entry(family.to_owned()).or_default();
        for (label, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
            if label != "le" {
                seen.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[tokio::test]
async fn a_scrape_holds_every_metric_with_labels_out_of_closed_sets() {
    let repository = Repository::with_sum();
    repository.add_graph("not_a_number", "");
    repository.add("both", "[[ensemble]]\nmodel = \"sum\"\n", &[]);
    let server = Server::of(&repository).await;
    for (model, text) in [("sum", "10"), ("sum", "10"), ("both", "11"), ("not_a_number", "13"), ("no-such-model", "10")]
    {
        server.post(&json!({"model": model, "inputs": [{"text": text}]})).await;
    }
    // A run whose names are labels, with what makes signals be read: a beginning and a window after it.
    for step in 0..8 {
        let inputs: Vec<_> =
            (0..60).map(|input| json!({"text": format!("{} {}", 100 + step * 10, 100 + input)})).collect();
        server.post(&json!({"model": "sum", "run": "a", "step": step, "inputs": inputs})).await;
    }
    // Nothing else that a client chooses becomes a label.
    for path in ["/v1/models/sum", "/v1/models/made-up", "/made/up", "/v1/score", "/health/live", "/metrics"] {
        server.get(path).await;
    }
    let made_up = reqwest::Method::from_bytes(b"MADEUP").unwrap();
    server.client.request(made_up, server.url("/v1/models/made-up")).send().await.unwrap();

    let reply = server.get("/metrics").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let scrape = Scrape::parse(&reply.text);
    let types: Vec<(&str, &str)> = scrape.types.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let expected: Vec<(&str, &str)> = CONTRACT.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    assert_eq!(types, expected);

    let routes = set(&["/health/live", "/metrics", "/v1/models/{name}", "/v1/score", "unmatched"]);
    for (name, _, labels) in CONTRACT {
        let seen = &scrape.labels[name];
        assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), labels, "{name}");
        for (label, values) in seen {
            let closed = match (label.as_str(), name) {
                ("model", "karat_model_state") => set(&["both", "not_a_number", "sum"]),
                ("state", _) => set(&["building", "failed", "loading", "ready", "unloaded"]),
                // What can't be computed has no reward.
                ("model", "karat_sample_reward" | "karat_sample_disagreement" | "karat_samples_truncated_total") => {
                    set(&["both", "sum"])
                }
                // A composite runs no pass of its own.
                ("model", name) if name.starts_with("karat_run_") => set(&["sum"]),
                ("model", _) => set(&["not_a_number", "sum"]),
                ("run", _) => set(&["a"]),
                ("signal", _) => values.clone(),
                ("route", _) => routes.clone(),
                ("status", _) => set(&["2xx", "4xx", "5xx"]),
                _ => set(&[env!("CARGO_PKG_VERSION")]),
            };
            assert_eq!(values, &closed, "{name}");
        }
    }
    assert_eq!(server.metric("karat_http_requests_total{route=\"/v1/score\",status=\"2xx\"}"), 11);
    assert_eq!(server.metric("karat_http_requests_total{route=\"/v1/score\",status=\"5xx\"}"), 1);
    assert_eq!(server.metric("karat_cache_hits_total{model=\"sum\"}"), 1);
    for (state, is) in [("ready", 1), ("failed", 0)] {
        assert_eq!(server.metric(&format!("karat_model_state{{model=\"sum\",state=\"{state}\"}}")), is);
    }
    assert_eq!(server.metric("karat_sample_reward_count{model=\"sum\"}"), 482);
    assert!(server.metric("karat_cache_bytes") > 0, "two scores are kept");
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard = include_str!("../../deploy/grafana/karat.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert_eq!(parsed["title"], "karat");
    let names = dashboard.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
    let shown: BTreeSet<&str> = names
        .filter(|name| name.starts_with("karat_"))
        .map(|name| ["_bucket", "_sum"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name))
        .collect();
    assert_eq!(shown, CONTRACT.iter().map(|(name, ..)| *name).collect());
}
