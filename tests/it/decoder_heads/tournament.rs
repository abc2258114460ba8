//! `POST /v1/tournament`, whose preferences are those that a judge of pairs gives of each two.

use serde_json::json;

use super::{assert_near, golden, mean, server, text};
use crate::support::is_close;

#[tokio::test]
async fn preferences_are_the_judges_of_each_pair_and_no_order_is_made_up() {
    let server = server().await;
    for dialogue in &golden().dialogues {
        let candidates: Vec<String> = dialogue.candidates.iter().map(|candidate| text(&candidate.response)).collect();
        let body = json!({"model": "judge_pair", "messages": dialogue.messages(), "candidates": candidates});
        let reply = server.post_to("/v1/tournament", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let told = &reply.body;
        for (first, orders) in dialogue.orders.iter().enumerate() {
            assert_near(&told["preferences"][first][first + 1], mean(orders), &reply.text);
            assert_near(&told["preferences"][first + 1][first], 1.0 - mean(orders), &reply.text);
        }
        let count = candidates.len() as f64;
        let sum = |list: &str| told[list].as_array().unwrap().iter().map(|rate| rate.as_f64().unwrap()).sum::<f64>();
        assert!(is_close(sum("win_rates"), count / 2.0), "every comparison has one winner: {}", reply.text);
        assert!(is_close(sum("copeland"), count * (count - 1.0) / 2.0), "{}", reply.text);
        assert!(told["cycles"].is_array() && told["unordered"].is_array() && told["circular_triads"].is_u64());
    }
}

#[tokio::test]
async fn what_makes_an_order_by_itself_is_sent_elsewhere() {
    let server = server().await;
    let body = |model: &str, candidates: &[&str]| json!({"model": model, "prompt": "20", "candidates": candidates});
    let alone = server.post_to("/v1/tournament", &body("likelihood", &["30", "40"])).await;
    alone.assert_problem(422, super::INVALID, "/v1/best-of-n");
    let one = server.post_to("/v1/tournament", &body("judge_pair", &["30"])).await;
    one.assert_problem(422, super::INVALID, "at least two");
}
