//! Best-of-N that looks for difference by what a decoder makes of each candidate.

use serde_json::{Value, json};

use super::{Dialogue, assert_all_near, golden, server, text};
use crate::support::{Reply, Server};

const SCORER: &str = "log_probability";

/// All candidates tie, so that distance alone decides.
fn furthest(neighbours: usize) -> Value {
    json!({"diverse": {"tolerance": 1e9, "neighbours": neighbours, "distance": "embeddings"}})
}

async fn ask(server: &Server, dialogue: &Dialogue, more: &Value) -> Reply {
    let candidates: Vec<String> = dialogue.candidates.iter().map(|candidate| text(&candidate.response)).collect();
    let mut body = json!({"model": SCORER, "messages": dialogue.messages(), "candidates": candidates});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post_to("/v1/best-of-n", &body).await
}

fn distance(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// The candidate whose nearest other is furthest away, and by how much it leads.
fn loneliest(dialogue: &Dialogue) -> (usize, f64) {
    let states: Vec<&[f64]> = dialogue.candidates.iter().map(|candidate| &*candidate.state).collect();
    let nearest = |index: usize| {
        let others = states.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, state)| distance(states[index], state)).fold(f64::INFINITY, f64::min)
    };
    let mut ranked: Vec<(usize, f64)> = (0..states.len()).map(|index| (index, nearest(index))).collect();
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    (ranked[0].0, ranked[0].1 - ranked[1].1)
}

#[tokio::test]
async fn the_candidate_whose_state_is_furthest_from_the_others_is_picked() {
    let server = server().await;
    let mut decided = 0;
    for dialogue in golden().dialogues {
        let (expected, lead) = loneliest(&dialogue);
        let more = json!({"select": furthest(1), "embedding_model": "embedding"});
        let reply = ask(&server, &dialogue, &more).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        // Where two are as far from each other as from nobody else, both are the loneliest, and the reward decides.
        if lead > 1e-3 {
            assert_eq!(reply.body["best"], expected);
            decided += 1;
        }
        assert_all_near(&reply.rewards(), &scores(&dialogue), "the rewards beside embeddings");

        let states: Vec<&[f64]> = dialogue.candidates.iter().map(|candidate| &*candidate.state).collect();
        let sent = ask(&server, &dialogue, &json!({"select": furthest(2), "embeddings": states})).await;
        let more = json!({"select": furthest(2), "embedding_model": "embedding"});
        let named = ask(&server, &dialogue, &more).await;
        assert_eq!(named.body["best"], sent.body["best"], "the states that were recorded and those of the server");
        assert!(sent.body["embedding"].is_null());
        let embedding = &named.body["embedding"];
        assert_eq!(embedding["model"], "embedding");
        assert_ne!(embedding["model_version"], named.body["model_version"]);
        assert!(embedding["usage"]["tokens"].as_u64() > Some(0) && embedding["cuts"].is_null());
    }
    assert!(decided > 0, "no dialogue has a loneliest candidate");
}

fn scores(dialogue: &Dialogue) -> Vec<f64> {
    dialogue.candidates.iter().map(|candidate| candidate.score(SCORER)).collect()
}

#[tokio::test]
async fn embeddings_that_nobody_can_make_or_wants_are_refused_before_anything_is_scored() {
    let server = server().await;
    let dialogue = &golden().dialogues[0];
    let diverse = furthest(1);
    let computed = || server.metric(&format!("karat_prefix_tokens_total{{model=\"{SCORER}\"}}"));
    let before = computed();
    for (more, status, told) in [
        (json!({"select": diverse, "embedding_model": "nobody"}), 404, "embedding_model: there is no model"),
        (json!({"select": diverse, "embedding_model": "not a name"}), 404, "embedding_model: there is no model"),
        (json!({"select": diverse, "embedding_model": "likelihood"}), 422, "gives no embeddings"),
        (json!({"select": diverse, "embedding_model": "embedding", "embeddings": [[1.0]]}), 422, "not both"),
        (json!({"embedding_model": "embedding"}), 422, "compares no embeddings"),
        (json!({"select": "majority_vote", "embedding_model": "embedding"}), 422, "answer"),
        (json!({"select": diverse}), 422, "embedding_model"),
    ] {
        let reply = ask(&server, dialogue, &more).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        assert!(reply.text.contains(told), "{}", reply.text);
    }
    assert_eq!(computed(), before);
}

#[tokio::test]
async fn what_is_cut_before_it_is_embedded_is_told() {
    let server = server().await;
    let dialogue = &golden().too_long[0];
    let wish = json!({"select": furthest(1), "embedding_model": "embedding"});
    assert_eq!(ask(&server, dialogue, &wish).await.status, 422);
    let mut cut = wish.clone();
    cut["truncation"] = json!("prompt_start");
    let reply = ask(&server, dialogue, &cut).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let cuts = reply.body["embedding"]["cuts"].as_array().unwrap();
    assert_eq!(cuts.len(), dialogue.candidates.len());
    assert!(cuts.iter().all(|cut| cut["prompt_tokens"].as_u64() > Some(0) && cut["response_tokens"] == 0), "{cuts:?}");
}
