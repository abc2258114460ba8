//! Dialogues that are longer than the model takes: refused, or cut where the caller says so and never elsewhere.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Dialogue, INVALID, SINGLES, assert_all_near, assert_near, golden, score, server, text};

const TOO_LONG: &str = "too-long";

fn inputs(dialogue: &Dialogue) -> Vec<Value> {
    dialogue.candidates.iter().map(|candidate| dialogue.input(candidate)).collect()
}

/// The same response to both candidates' prompts, as a pair.
fn pair(dialogue: &Dialogue) -> Value {
    json!({"messages": dialogue.messages(), "chosen": "40", "rejected": "50"})
}

#[tokio::test]
async fn a_prompt_over_the_context_is_refused_and_its_neighbours_are_scored() {
    let golden = golden();
    let server = server().await;
    let (good, long) = (&golden.dialogues[0], &golden.too_long[0]);
    let asked = SINGLES.map(|model| {
        let server = &server;
        async move {
            let mixed =
                json!({"model": model, "inputs": [good.input(&good.candidates[0]), long.input(&long.candidates[0])]});
            let pairs = json!({"model": model, "pairs": [pair(good), pair(good), pair(long)]});
            let candidates = inputs(good);
            let (mixed, pairs, neighbour) = tokio::join!(
                server.post(&mixed),
                server.post_to("/v1/compare", &pairs),
                score(server, model, &candidates),
            );
            for (refused, index) in [(mixed, 1), (pairs, 2)] {
                refused.assert_problem(422, TOO_LONG, "takes at most 200");
                assert_eq!(refused.body["index"], index, "{}", refused.text);
            }
            let expected: Vec<f64> = good.candidates.iter().map(|candidate| candidate.score(model)).collect();
            assert_all_near(&neighbour, &expected, model);
        }
    });
    join_all(asked).await;
    let pairs = json!({"model": "judge_pair", "pairs": [pair(good), pair(long)]});
    server.post_to("/v1/compare", &pairs).await.assert_problem(422, TOO_LONG, "takes at most 200");
}

#[tokio::test]
async fn the_start_of_the_prompt_is_cut_where_the_caller_asks() {
    let server = server().await;
    for (at, dialogue) in golden().too_long.iter().enumerate() {
        for model in SINGLES {
            let body = json!({"model": model, "inputs": inputs(dialogue), "truncation": "prompt_start"});
            let reply = server.post(&body).await;
            // What it asks for stands where the prompt is cut, if that is the prompt it changes.
            if model == "contrastive" && at == 0 {
                reply.assert_problem(422, TOO_LONG, "never cut");
                continue;
            }
            assert_eq!(reply.status, 200, "{model}: {}", reply.text);
            for (result, candidate) in reply.body["results"].as_array().unwrap().iter().zip(&dialogue.candidates) {
                assert_near(&result["reward"], candidate.score(model), model);
                assert_eq!(result["truncated"], true, "{}", reply.text);
                assert!(result["cut"]["prompt_tokens"].as_u64() > Some(40), "{}", reply.text);
                assert_eq!(result["cut"]["response_tokens"], 0, "{}", reply.text);
            }
        }
    }
}

#[tokio::test]
async fn what_is_judged_is_never_cut() {
    let server = server().await;
    let golden = golden();
    let (good, long) = (&golden.dialogues[0], &golden.too_long[0]);
    let response = json!({"prompt": "20 30", "response": "40 ".repeat(196)});
    for truncation in ["prompt_start", "response_end"] {
        for model in ["follow_up", "judge_single", "contrastive"] {
            let body = json!({"model": model, "inputs": [response], "truncation": truncation});
            server.post(&body).await.assert_problem(422, TOO_LONG, "never cut");
        }
        // One question holds the prompt and both responses.
        let body = json!({"model": "judge_pair", "pairs": [pair(good), pair(long)], "truncation": truncation});
        let reply = server.post_to("/v1/compare", &body).await;
        reply.assert_problem(422, TOO_LONG, "never cut");
        assert_eq!(reply.body["index"], 1, "{}", reply.text);
    }
}

#[tokio::test]
async fn the_end_of_a_response_is_cut_where_only_its_own_likelihood_is_read() {
    let server = server().await;
    let words: Vec<u32> = (0..220).map(|at| 20 + at * 7 % 250).collect();
    // A beginning, two marks and two words before the response, and an end that isn't read.
    let whole = json!({"prompt": "20 30", "response": text(&words)});
    let fitting = json!({"prompt": "20 30", "response": text(&words[..200 - 6])});
    for model in ["log_probability", "likelihood", "implicit", "implicit_mean"] {
        let body = json!({"model": model, "inputs": [whole], "truncation": "response_end"});
        let reply = server.post(&body).await;
        assert_eq!(reply.body["results"][0]["cut"]["response_tokens"], 220 - 194, "{}", reply.text);
        assert_all_near(&reply.rewards(), &score(&server, model, std::slice::from_ref(&fitting)).await, model);
        let body = json!({"model": model, "inputs": [whole], "truncation": "prompt_start"});
        server.post(&body).await.assert_problem(422, TOO_LONG, "even without its prompt");
    }
    let unknown = json!({"model": "implicit", "inputs": [whole], "truncation": "somewhere"});
    server.post(&unknown).await.assert_problem(422, INVALID, "prompt_start");
}
