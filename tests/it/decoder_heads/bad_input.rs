//! What can't be scored is refused with what to change, and nobody who asks at the same time loses.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Dialogue, INVALID, SINGLES, TEMPLATE, assert_all_near, assert_near, golden, mean, score, server, with_template,
};
use crate::support::Server;

fn input(prompt: &str, response: &str) -> Value {
    json!({"prompt": prompt, "response": response})
}

/// Every model's score of good candidates.
async fn assert_neighbours(server: &Server, dialogue: &Dialogue) {
    let inputs: Vec<Value> = dialogue.candidates.iter().map(|candidate| dialogue.input(candidate)).collect();
    join_all(SINGLES.map(|model| {
        let inputs = &inputs;
        async move {
            let expected: Vec<f64> = dialogue.candidates.iter().map(|candidate| candidate.score(model)).collect();
            assert_all_near(&score(server, model, inputs).await, &expected, model);
        }
    }))
    .await;
    let pairs = json!({"model": "judge_pair", "pairs": dialogue.pairs()});
    let reply = server.post_to("/v1/compare", &pairs).await;
    for (result, orders) in reply.body["results"].as_array().unwrap().iter().zip(&dialogue.orders) {
        assert_near(&result["judged"]["reward"], mean(orders), &reply.text);
    }
}

/// Sends what is refused and, at the same time, what isn't; each refusal names its kind and the input at fault.
async fn assert_refused(server: &Server, bad: &[(&str, Value, &str)]) {
    let golden = golden();
    let refusals = join_all(bad.iter().map(|(path, body, _)| server.post_to(path, body)));
    let (refusals, ()) = tokio::join!(refusals, assert_neighbours(server, &golden.dialogues[1]));
    for ((path, body, needle), reply) in bad.iter().zip(refusals) {
        reply.is_problem(422, INVALID, needle).unwrap_or_else(|told| panic!("{path} {body}: {told}"));
    }
}

#[tokio::test]
async fn no_candidates_and_empty_responses_are_refused() {
    let mut bad = Vec::new();
    for model in SINGLES {
        bad.push(("/v1/score", json!({"model": model, "inputs": []}), "at least one"));
        bad.push(("/v1/compare", json!({"model": model, "pairs": []}), "at least one"));
        bad.push(("/v1/best-of-n", json!({"model": model, "prompt": "20", "candidates": []}), "at least one"));
        for empty in ["", " \n"] {
            bad.push((
                "/v1/score",
                json!({"model": model, "inputs": [input("20", "40"), input("20", empty)]}),
                "empty",
            ));
            let pair = json!({"prompt": "20", "chosen": "40", "rejected": empty});
            bad.push(("/v1/compare", json!({"model": model, "pairs": [pair]}), "empty"));
            bad.push(("/v1/best-of-n", json!({"model": model, "prompt": "20", "candidates": ["40", empty]}), "empty"));
        }
    }
    for model in ["log_probability", "likelihood", "implicit", "implicit_mean", "contrastive"] {
        bad.push(("/v1/tokens", json!({"model": model, "inputs": []}), "at least one"));
        bad.push(("/v1/tokens", json!({"model": model, "inputs": [input("20", "")]}), "empty"));
    }
    bad.push(("/v1/compare", json!({"model": "judge_pair", "pairs": []}), "at least one"));
    for (chosen, rejected) in [("", "40"), ("40", " ")] {
        let pair = json!({"prompt": "20", "chosen": chosen, "rejected": rejected});
        bad.push(("/v1/compare", json!({"model": "judge_pair", "pairs": [pair]}), "empty"));
    }
    assert_refused(&server().await, &bad).await;
}

#[tokio::test]
async fn a_sample_that_a_head_can_t_ask_about_is_refused() {
    let one = |model: &str, input: Value| ("/v1/score", json!({"model": model, "inputs": [input]}));
    let response_alone = json!({"messages": [{"role": "assistant", "content": "40"}]});
    let unanswered = json!({"messages": [{"role": "user", "content": "40"}]});
    let mut bad = Vec::new();
    let mut refused = |(path, body): (&'static str, Value), needle: &'static str| bad.push((path, body, needle));
    for model in ["follow_up", "contrastive", "judge_single"] {
        refused(one(model, json!({"text": "20 30"})), "needs the messages");
    }
    for model in SINGLES {
        refused(one(model, unanswered.clone()), "assistant");
    }
    for model in ["log_probability", "likelihood", "implicit", "implicit_mean"] {
        refused(one(model, json!({"text": "20"})), "nothing goes before");
    }
    refused(one("contrastive", response_alone), "no user's turn");
    refused(one("judge_pair", input("20", "30")), "/v1/compare");
    refused(
        ("/v1/best-of-n", json!({"model": "judge_pair", "prompt": "20", "candidates": ["30", "40"]})),
        "/v1/compare",
    );
    assert_refused(&server().await, &bad).await;
}

#[tokio::test]
async fn a_template_that_renders_nothing_or_refuses_is_named() {
    // Nothing is said to a system's instructions that are one word, and a tool's answer is refused.
    let template = format!(
        "{{% if messages[0]['role'] == 'tool' %}}{{{{ raise_exception('tools are not known') }}}}{{% endif %}}\
         {{% if messages[0]['content'] != '77' %}}{TEMPLATE}{{% endif %}}"
    );
    let server = Server::of(&with_template(&template)).await;
    let dialogue = |role: &str| json!([{"role": role, "content": "77"}, {"role": "user", "content": "20"}]);
    let mut bad = Vec::new();
    for (role, likelihood, opening) in [
        ("system", "the template changes the text", "no tokens"),
        ("tool", "tools are not known", "tools are not known"),
    ] {
        for model in SINGLES {
            let mut messages = dialogue(role);
            messages.as_array_mut().unwrap().push(json!({"role": "assistant", "content": "40"}));
            let needle = if model == "judge_single" { opening } else { likelihood };
            bad.push(("/v1/score", json!({"model": model, "inputs": [{"messages": messages}]}), needle));
            let pair = json!({"messages": dialogue(role), "chosen": "40", "rejected": "50"});
            bad.push(("/v1/compare", json!({"model": model, "pairs": [pair]}), needle));
        }
    }
    assert_refused(&server, &bad).await;
}

/// Such a response must not be taken for the prompt's word that it equals.
#[tokio::test]
async fn a_response_that_the_template_rewrites_is_not_looked_for_in_the_prompt() {
    let said = "{{ m['content'] }}";
    let rewriting =
        TEMPLATE.replace(said, "{{ m['content'].replace('40', '41') if loop.index > 1 else m['content'] }}");
    assert_ne!(rewriting, TEMPLATE);
    let server = Server::of(&with_template(&rewriting)).await;
    for model in ["log_probability", "likelihood", "implicit", "implicit_mean", "contrastive"] {
        let body = json!({"model": model, "inputs": [input("10 40 11", "40")]});
        server.post(&body).await.assert_problem(422, INVALID, "the template changes the text \"40\"");
        // What it leaves alone is scored.
        assert_eq!(score(&server, model, &[input("10 40 11", "50")]).await.len(), 1);
    }
}
