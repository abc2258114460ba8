//! What becomes of a sample that can't be scored beside others that can.

use serde_json::{Value, json};

use crate::support::{Repository, Server};

async fn server() -> Server {
    let repository = Repository::empty();
    repository.add_graph("sum", "");
    Server::of(&repository).await
}

fn body(texts: &[&str], on_refused: &Value) -> Value {
    let inputs: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    json!({"model": "sum", "inputs": inputs, "on_refused": on_refused})
}

#[tokio::test]
async fn the_others_are_scored_and_the_reply_tells_which_were_not() {
    let server = server().await;
    let long = "7 ".repeat(3000);
    let texts = ["10", "", "20", &long, "30"];
    server.post(&body(&texts, &json!("fail"))).await.assert_problem(422, "invalid-request", "inputs[1]");
    let alone = server.rewards("sum", &["10", "20", "30"]).await;
    for (choice, number) in [(json!("mark"), Value::Null), (json!({"reward": -1}), json!(-1.0))] {
        let reply = server.post(&body(&texts, &choice)).await;
        assert_eq!((reply.status, &reply.body["refused"]), (200, &json!(2)), "{}", reply.text);
        let results = reply.body["results"].as_array().unwrap();
        let rewards: Vec<&Value> = results.iter().map(|result| &result["reward"]).collect();
        assert_eq!(rewards, [&json!(alone[0]), &number, &json!(alone[1]), &number, &json!(alone[2])]);
        let indices: Vec<&Value> = results.iter().map(|result| &result["index"]).collect();
        assert_eq!(indices, [0, 1, 2, 3, 4]);
        assert!(results[3]["refused"].as_str().unwrap().contains("tokens"), "{}", reply.text);
        assert!(results[0].get("refused").is_none());
    }
    let none = server.post(&body(&["", ""], &json!("mark"))).await;
    assert_eq!((none.status, &none.body["refused"]), (200, &json!(2)), "{}", none.text);
    let whole = server.post(&body(&["10"], &json!("mark"))).await;
    assert!(whole.body.get("refused").is_none(), "{}", whole.text);
    server.post(&body(&["10"], &json!("skip"))).await.assert_problem(422, "invalid-request", "on_refused");
}

#[tokio::test]
async fn a_group_consists_of_those_that_were_scored() {
    let server = server().await;
    let with = |texts: &[&str], margins: &[f64]| {
        let mut body = body(texts, &json!("mark"));
        body["group"] = json!(true);
        body["transforms"] = json!([{"z_score": {}}]);
        body["margins"] = json!(margins);
        body
    };
    let reply = server.post(&with(&["10", "", "30"], &[1.0, 2.0, 3.0])).await;
    let whole = server.post(&with(&["10", "30"], &[1.0, 3.0])).await;
    if whole.status == 200 {
        assert_eq!(reply.body["results"][0], whole.body["results"][0]);
        assert_eq!(reply.body["results"][2]["reward"], whole.body["results"][1]["reward"]);
    } else {
        assert_eq!(reply.status, whole.status, "{} {}", reply.text, whole.text);
    }
}

#[tokio::test]
async fn the_best_is_chosen_among_those_that_were_scored() {
    let server = server().await;
    let body = json!({"model": "sum", "prompt": "", "candidates": ["30", "", "25", "20"], "answers": ["a", "b", "c", "c"],
                      "select": "best_of_n", "on_refused": "mark", "curve": true});
    let reply = server.post_to("/v1/best-of-n", &body).await;
    assert_eq!((reply.status, &reply.body["best"]), (200, &json!(0)), "{}", reply.text);
    let ranking = reply.body["ranking"].as_array().unwrap();
    assert_eq!(ranking.iter().map(|placed| placed["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 2, 3]);
    let vote = json!({"majority_vote": {"tolerance": 0.01}});
    let mut voted = body.clone();
    voted["select"] = vote;
    let reply = server.post_to("/v1/best-of-n", &voted).await;
    assert_eq!((reply.status, &reply.body["best"]), (200, &json!(2)), "{}", reply.text);
    let compared =
        json!({"model": "sum", "pairs": [{"prompt": "", "chosen": "10", "rejected": "20"}], "on_refused": "mark"});
    server.post_to("/v1/compare", &compared).await.assert_problem(422, "invalid-request", "on_refused");
}
