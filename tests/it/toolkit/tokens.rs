//! `POST /v1/tokens`.

use serde_json::{Value, json};

use super::{INVALID, assert_number};
use crate::support::{Repository, Server};

/// The reward of a token is the log-sigmoid of twice its id over 1000.
async fn server() -> Server {
    let repository = Repository::with_sum();
    let manifest = "head = { token = { read = { label_log_probability = { label = 0 } } } }\n\
                    [graph]\nfile = \"tokens.onnx\"\n[text]\nrender = \"pair\"\nmax_tokens = 64\npad_token = \"[PAD]\"";
    repository.add("tokens", manifest, &["tokens"]);
    Server::of(&repository).await
}

/// [CLS] 20 [SEP] é 20 ßß 30 [SEP]: what the tokenizer added has no reward, and unknown words have the id 3.
#[tokio::test]
async fn ranges_count_the_characters_of_the_response() {
    let input = json!({"prompt": "20", "response": "é 20 ßß 30"});
    let reply = server().await.post_to("/v1/tokens", &json!({"model": "tokens", "inputs": [input, input]})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    for result in reply.body["results"].as_array().unwrap() {
        let tokens = result["token_rewards"].as_array().unwrap();
        let expected =
            [(3, 0, 1, -0.690151681), (4, 2, 4, -0.673347167), (5, 5, 7, -0.690151681), (6, 8, 10, -0.663597113)];
        assert_eq!(tokens.len(), expected.len(), "{tokens:?}");
        for (token, (position, start, end, reward)) in tokens.iter().zip(expected) {
            assert_eq!(token["position"], position);
            assert_eq!(token["text"], json!({"start": start, "end": end}));
            assert_number(&token["reward"], reward);
        }
        let mean = expected.iter().map(|token| token.3).sum::<f64>() / 4.0;
        assert_number(&result["raw"], mean);
        assert_number(&result["reward"], mean);
        assert_eq!(result["tokens"], 8);
    }
}

#[tokio::test]
async fn token_rewards_can_be_part_of_a_score() {
    let server = server().await;
    let input = json!({"prompt": "20", "response": "30"});
    let score = |include: Value| json!({"model": "tokens", "inputs": [input], "include": include});
    let with = server.post(&score(json!(["tokens"]))).await;
    assert_eq!(with.body["results"][0]["token_rewards"][0]["text"], json!({"start": 0, "end": 2}));
    let without = server.post(&score(json!([]))).await;
    assert!(without.body["results"][0].get("token_rewards").is_none(), "{}", without.text);
}

#[tokio::test]
async fn a_model_without_a_token_head_is_refused() {
    let server = server().await;
    let body = json!({"model": "sum", "inputs": [{"text": "10"}]});
    server.post_to("/v1/tokens", &body).await.assert_problem(422, INVALID, "token head");
    let body = json!({"model": "tokens", "inputs": []});
    server.post_to("/v1/tokens", &body).await.assert_problem(422, INVALID, "at least one");
}

/// Many templates trim what is said; a few leave thoughts out.
#[tokio::test]
async fn a_template_that_changes_the_response_never_shifts_its_tokens() {
    let repository = Repository::with_sum();
    let manifest = |template: &str| {
        format!(
            "head = {{ token = {{ read = {{ label_log_probability = {{ label = 0 }} }} }} }}\n\
             [graph]\nfile = \"tokens.onnx\"\n[text]\nmax_tokens = 64\npad_token = \"[PAD]\"\n\
             render = {{ jinja = \"{{% for m in messages %}}{{{{ m.role }}}} {{{{ m.content {template} }}}} {{% endfor %}}\" }}"
        )
    };
    repository.add("trims", &manifest("| trim"), &["tokens"]);
    repository.add("strips", &manifest(".split('#')[-1]"), &["tokens"]);
    let server = Server::of(&repository).await;
    let ask = |model: &str, response: &str| json!({"model": model, "inputs": [{"prompt": "100 20 200", "response": response}]});
    let bare = server.post_to("/v1/tokens", &ask("trims", "20")).await;
    let rewards = bare.body["results"][0]["token_rewards"].as_array().unwrap();
    assert_eq!((rewards.len(), &rewards[0]["text"]), (1, &json!({"start": 0, "end": 2})));
    let ended = server.post_to("/v1/tokens", &ask("trims", "20 ")).await;
    assert_eq!(ended.body["results"], bare.body["results"]);
    let led = server.post_to("/v1/tokens", &ask("trims", " 20")).await;
    let reward = &led.body["results"][0]["token_rewards"][0];
    assert_eq!(reward["text"], json!({"start": 1, "end": 3}), "of the response as it was sent");
    assert_eq!((&reward["reward"], &reward["position"]), (&rewards[0]["reward"], &rewards[0]["position"]));
    let refused = server.post_to("/v1/tokens", &ask("strips", "30#20")).await;
    refused.assert_problem(422, INVALID, "template changes the text \"30#20\"");
}
