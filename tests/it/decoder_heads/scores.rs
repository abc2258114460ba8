//! Scores are those of the independent implementation, on every route and however the candidates come.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Candidate, Dialogue, INVALID, SINGLES, assert_all_near, assert_near, golden, mean, repository, score, server, text,
};
use crate::support::{Reply, Server};

fn expected(dialogues: &[Dialogue], model: &str) -> Vec<f64> {
    dialogues.iter().flat_map(|dialogue| &dialogue.candidates).map(|candidate| candidate.score(model)).collect()
}

fn inputs(dialogues: &[Dialogue]) -> Vec<Value> {
    let of = |dialogue: &Dialogue| -> Vec<Value> {
        dialogue.candidates.iter().map(|candidate| dialogue.input(candidate)).collect()
    };
    dialogues.iter().flat_map(of).collect()
}

#[tokio::test]
async fn all_candidates_in_one_request_score_as_each_does_in_its_own() {
    let dialogues = golden().dialogues;
    let (together, apart) = (server().await, server().await);
    for model in SINGLES {
        let expected = expected(&dialogues, model);
        assert_all_near(&score(&together, model, &inputs(&dialogues)).await, &expected, model);
        for (input, expected) in inputs(&dialogues).into_iter().zip(expected) {
            assert_all_near(&score(&apart, model, &[input]).await, &[expected], model);
        }
    }
}

#[tokio::test]
async fn requests_at_the_same_time_to_every_head_don_t_mix() {
    let dialogues = golden().dialogues;
    let server = server().await;
    // The candidates of different prompts in turn, and each model's right beside the others'.
    let inputs = inputs(&dialogues);
    let asked = (0..inputs.len()).map(|at| at * 5 % inputs.len()).flat_map(|at| SINGLES.map(|model| (at, model)));
    let asked: Vec<(usize, &str)> = asked.collect();
    let replies = join_all(asked.iter().map(|(at, model)| score(&server, model, &inputs[*at..=*at]))).await;
    for ((at, model), found) in asked.iter().zip(replies) {
        assert_all_near(&found, &[expected(&dialogues, model)[*at]], model);
    }
}

#[tokio::test]
async fn each_token_of_the_response_has_its_reward() {
    let dialogues = golden().dialogues;
    let server = server().await;
    for (model, rewards) in [
        ("log_probability", (|candidate| candidate.policy.clone()) as fn(&Candidate) -> Vec<f64>),
        ("likelihood", |candidate| candidate.policy.clone()),
        ("implicit", Candidate::implicit),
        ("implicit_mean", Candidate::implicit),
        ("contrastive", |candidate| candidate.contrast.clone()),
    ] {
        let reply = server.post_to("/v1/tokens", &json!({"model": model, "inputs": inputs(&dialogues)})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let candidates = dialogues.iter().flat_map(|dialogue| &dialogue.candidates);
        for (result, candidate) in reply.body["results"].as_array().unwrap().iter().zip(candidates) {
            assert_near(&result["reward"], candidate.score(model), model);
            let tokens = result["token_rewards"].as_array().unwrap();
            let found: Vec<f64> = tokens.iter().map(|token| token["reward"].as_f64().unwrap()).collect();
            assert_all_near(&found, &rewards(candidate), model);
            // The characters of a token are those of its word in the response.
            let response = text(&candidate.response);
            for (token, word) in tokens.iter().zip(&candidate.response) {
                let [start, end] = ["start", "end"].map(|side| token["text"][side].as_u64().unwrap() as usize);
                assert_eq!(response[start..end], word.to_string(), "{model}: {}", reply.text);
            }
        }
    }
    for model in ["follow_up", "judge_single", "embedding"] {
        let body = json!({"model": model, "inputs": inputs(&dialogues)});
        server.post_to("/v1/tokens", &body).await.assert_problem(422, INVALID, "token");
    }
}

#[tokio::test]
async fn a_follow_up_is_scored_by_category() {
    let dialogues = golden().dialogues;
    let body = json!({"model": "follow_up", "inputs": inputs(&dialogues), "include": ["objectives"]});
    let reply = server().await.post(&body).await;
    let candidates = dialogues.iter().flat_map(|dialogue| &dialogue.candidates);
    for (result, candidate) in reply.body["results"].as_array().unwrap().iter().zip(candidates) {
        let [thanks, safety] = candidate.follow_ups;
        assert_near(&result["objectives"]["thanks"], thanks, &reply.text);
        assert_near(&result["objectives"]["safety"], safety, &reply.text);
    }
}

async fn compare(server: &Server, model: &str, pairs: &[Value]) -> Reply {
    let reply = server.post_to("/v1/compare", &json!({"model": model, "pairs": pairs})).await;
    assert_eq!(reply.status, 200, "{model}: {}", reply.text);
    reply
}

fn sigmoid(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

#[tokio::test]
async fn a_pair_is_compared_by_what_each_response_scores() {
    let dialogues = golden().dialogues;
    let server = server().await;
    let pairs: Vec<Value> = dialogues.iter().flat_map(Dialogue::pairs).collect();
    for model in SINGLES {
        let reply = compare(&server, model, &pairs).await;
        let results = reply.body["results"].as_array().unwrap();
        let two = dialogues.iter().flat_map(|dialogue| dialogue.candidates.windows(2));
        assert_eq!(results.len(), two.clone().count());
        for (result, two) in results.iter().zip(two) {
            let (chosen, rejected) = (two[0].score(model), two[1].score(model));
            assert_near(&result["chosen"]["reward"], chosen, model);
            assert_near(&result["rejected"]["reward"], rejected, model);
            assert_near(&result["margin"], chosen - rejected, model);
            assert_near(&result["probability"], sigmoid(chosen - rejected), model);
        }
    }
}

#[tokio::test]
async fn a_judge_of_pairs_sees_both_in_both_orders() {
    let dialogues = golden().dialogues;
    let (together, apart) = (server().await, server().await);
    let pairs: Vec<Value> = dialogues.iter().flat_map(Dialogue::pairs).collect();
    let orders: Vec<[f64; 2]> = dialogues.iter().flat_map(|dialogue| dialogue.orders.clone()).collect();
    let assert_judged = |result: &Value, orders: &[f64; 2]| {
        let preference = mean(orders);
        assert_near(&result["orders"][0], orders[0], "shown first");
        assert_near(&result["orders"][1], orders[1], "shown second");
        assert_near(&result["judged"]["reward"], preference, "preference");
        assert_near(&result["probability"], preference, "probability");
        assert_near(&json!(sigmoid(result["margin"].as_f64().unwrap())), preference, "margin");
    };
    let reply = compare(&together, "judge_pair", &pairs).await;
    assert_eq!(reply.body["results"].as_array().unwrap().len(), orders.len());
    let alone = join_all(pairs.iter().map(|pair| compare(&apart, "judge_pair", std::slice::from_ref(pair)))).await;
    for (index, orders) in orders.iter().enumerate() {
        assert_judged(&reply.body["results"][index], orders);
        assert_judged(&alone[index].body["results"][0], orders);
    }
    // Turned round, what was shown first is shown second, and the preference is for the other.
    let turned =
        |pair: &Value| json!({"messages": pair["messages"], "chosen": pair["rejected"], "rejected": pair["chosen"]});
    let reply = compare(&together, "judge_pair", &pairs.iter().map(turned).collect::<Vec<_>>()).await;
    for (result, [first, second]) in reply.body["results"].as_array().unwrap().iter().zip(&orders) {
        assert_judged(result, &[1.0 - second, 1.0 - first]);
    }
    // Of two equal responses neither is preferred, whatever place the judge favours.
    let equal = json!({"prompt": "20 30", "chosen": "40", "rejected": "40"});
    let reply = compare(&together, "judge_pair", &[equal]).await;
    assert_near(&reply.body["results"][0]["probability"], 0.5, &reply.text);
}

#[tokio::test]
async fn candidates_of_one_prompt_share_it_in_both_graphs() {
    let dialogues = golden().dialogues;
    let longest = &dialogues[2];
    let server = Server::of(&repository()).await;
    let computed = || server.metric("karat_prefix_computed_tokens_total{model=\"implicit\"}");
    let warm_up = computed();
    let inputs: Vec<Value> = longest.candidates.iter().map(|candidate| longest.input(candidate)).collect();
    let expected: Vec<f64> = longest.candidates.iter().map(|candidate| candidate.score("implicit")).collect();
    assert_all_near(&score(&server, "implicit", &inputs).await, &expected, "implicit");
    // A beginning, the prompt between two marks and the mark of the assistant, once for each graph.
    let prompt = 4 + longest.messages[0].content.len();
    let own: usize = longest.candidates.iter().map(|candidate| candidate.response.len()).sum();
    let spent = computed() - warm_up;
    assert!((1..=2 * (prompt + own) as u64).contains(&spent), "{spent} tokens for {prompt} and {own}");
}

/// All of a beginning is kept already when it is asked for: nothing is left to compute but what is read of it.
#[tokio::test]
async fn beginnings_of_what_is_known_score_as_if_they_came_first() {
    let dialogues = golden().dialogues;
    let server = server().await;
    for dialogue in &dialogues {
        for candidate in &dialogue.candidates {
            for known in (1..=candidate.response.len()).rev() {
                let mut messages = dialogue.messages();
                messages.push(json!({"role": "assistant", "content": text(&candidate.response[..known])}));
                let input = [json!({"messages": messages})];
                let likelihood = candidate.policy[..known].iter().sum();
                assert_all_near(&score(&server, "likelihood", &input).await, &[likelihood], "likelihood");
                let implicit = mean(&candidate.implicit()[..known]);
                assert_all_near(&score(&server, "implicit_mean", &input).await, &[implicit], "implicit_mean");
                let contrast = mean(&candidate.contrast[..known]);
                assert_all_near(&score(&server, "contrastive", &input).await, &[contrast], "contrastive");
            }
        }
    }
    for model in ["likelihood", "implicit_mean", "contrastive"] {
        assert!(server.metric(&format!("karat_prefix_hits_total{{model=\"{model}\"}}")) > 0, "{model}");
    }
}

#[tokio::test]
async fn an_embedding_s_score_is_its_length() {
    let golden: Value = serde_json::from_str(include_str!("../../graphs/tiny_decoders.json")).unwrap();
    let server = server().await;
    for case in golden["tiny_decoder_lm"].as_array().unwrap() {
        let state: Vec<f64> = case["last_hidden"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        let length = state.iter().map(|value| value * value).sum::<f64>().sqrt();
        let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let input = [json!({"text": text(&ids)})];
        for model in ["embedding", "classifier_embedding"] {
            assert_all_near(&score(&server, model, &input).await, &[length], model);
        }
    }
}
