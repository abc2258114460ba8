//! Rules that a request or manifest can't have are refused when it is read; extremes stay finite.

use karat_rules::transform::{Chain, Signal};
use serde_json::{Value, json};

use super::{INVALID, THREE_MEMBERS, add_process_model, assert_number, assert_numbers};
use crate::support::{Repository, Server, Unserved};

fn score(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "inputs": [{"text": "100"}, {"text": "200"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn what_could_never_apply_is_refused_before_anything_is_scored() {
    const PASSES: &str = "karat_forward_pass_seconds_count{model=\"sum\"}";
    let server = Server::of(&Repository::with_sum()).await;
    let passes = server.metric(PASSES);
    for (more, needle) in [
        (json!({"transforms": ["delta"]}), "delta"),
        (json!({"transforms": ["grpo"]}), "at least 2 responses to one prompt"),
        (json!({"transforms": ["rank"]}), "at least 2 responses to one prompt"),
        (json!({"aggregate": {"win_rate": {"preference": "strict"}}}), "candidates"),
        (json!({"transforms": ["running_normalise"]}), "running_normalise"),
        (json!({"transforms": [{"log_sigmoid": {"reference": "mean"}}]}), "a number, \"canned\""),
        (json!({"aggregate": {"uncertainty_weighted": {"lambda": 0.5, "ddof": 1}}}), "needs at least 2"),
        (json!({"transforms": [{"novelty_decay": {"beta": 3}}]}), "send counts"),
        (json!({"transforms": [{"novelty_decay": {"beta": 3}}], "counts": [1]}), "send counts"),
        (json!({"transforms": [{"novelty_decay": {"beta": 3}}], "counts": [1, 0]}), "a count is 0"),
        (json!({"transforms": [{"dynamic_scaling": {"b": 0.1, "w": 0.5, "k": 0.5}}]}), "send margins"),
    ] {
        server.post(&score("sum", &more)).await.assert_problem(422, INVALID, needle);
    }
    assert_eq!(server.metric(PASSES), passes);
}

#[tokio::test]
async fn a_group_and_what_is_sent_along_are_used() {
    let server = Server::of(&Repository::with_sum()).await;
    let rewards = async |more: Value| {
        let reply = server.post(&score("sum", &more)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.rewards()
    };
    assert_numbers(&rewards(json!({"group": true, "transforms": ["rloo"]})).await, &[-0.1, 0.1]);
    let counted = json!({"transforms": [{"novelty_decay": {"beta": 3}}], "counts": [1, 2]});
    assert_numbers(&rewards(counted).await, &[0.1, 0.2 / 8.0]);
    // log sigmoid(r - 0.5), whose reference is the mean of those sent.
    let referred = json!({"transforms": [{"log_sigmoid": {"reference": {"mean": {"of": "references"}}}}], "references": [-1, 0, 0.5, 1, 2]});
    assert_numbers(&rewards(referred).await, &[-0.913015, -0.854355]);
}

#[tokio::test]
async fn a_manifest_that_could_never_work_is_refused_when_it_is_loaded() {
    let repository = Repository::empty();
    let ddof = "aggregate = { uncertainty_weighted = { lambda = 0.5, ddof = 1 } }";
    repository.add_graph("sum", ddof);
    repository.add_graph("members", &format!("{THREE_MEMBERS}\n{ddof}"));
    add_process_model(&repository, "middle");
    let unserved = Unserved::new();
    unserved.load(&repository).await.unwrap();
    let server = unserved.serve().await;
    let alone = server.get("/v1/models/sum").await;
    assert!(alone.text.contains("failed") && alone.text.contains("needs at least 2"), "{}", alone.text);
    let steps = server.get("/v1/models/steps").await;
    assert!(steps.text.contains("failed") && steps.text.contains("geometric_mean"), "{}", steps.text);
    assert_eq!(server.post(&score("members", &json!({}))).await.status, 200);
}

#[tokio::test]
async fn extreme_rewards_stay_finite() {
    let server = Server::of(&Repository::with_sum()).await;
    let scaled = |scale: f64, then: Value| json!({"transforms": [{"affine": {"scale": scale}}, then], "group": true});
    let huge = server.post(&score("sum", &scaled(1e30, json!({"clip": {"max": 1e300}})))).await;
    assert_numbers(&huge.rewards(), &[1e29, 2e29]);
    for sign in [1.0, -1.0] {
        for then in
            [json!("grpo"), json!("rloo"), json!({"log_sigmoid": {"reference": 0}}), json!("tanh"), json!("sigmoid")]
        {
            let reply = server.post(&score("sum", &scaled(sign * 1e30, then.clone()))).await;
            assert_eq!(reply.status, 200, "{then}: {}", reply.text);
            assert!(reply.rewards().iter().all(|reward| reward.is_finite()), "{}", reply.text);
        }
    }
    let advantages = server.post(&score("sum", &scaled(1e30, json!({"grpo": {"ddof": 0}})))).await;
    assert_numbers(&advantages.rewards(), &[-1.0, 1.0]);
    let denormal = server.post(&score("sum", &scaled(5e-324, json!("grpo")))).await;
    assert_numbers(&denormal.rewards(), &[0.0, 0.0]);
}

/// The bounds of Gao et al. 2024 don't grow with the number of steps.
#[test]
fn ten_thousand_steps_stay_bounded() {
    let steps: Vec<f64> = (0..10_000_u32).map(|step| f64::from(step % 100) / 100.0 + 0.005).collect();
    let last = steps.len() - 1;
    for (written, total) in [(json!(["delta"]), steps[0]), (json!([{"clip_then_delta": {"eta": 0.7}}]), steps[0] - 0.7)]
    {
        let choices: Vec<_> = serde_json::from_value(written).unwrap();
        let chain = Chain::build(&choices, true).unwrap();
        let mut group = [Signal::Steps(steps.clone())];
        chain.apply(&mut group).unwrap();
        assert_number(&json!(group[0].total()), total);
        let Signal::Steps(rewards) = &group[0] else { panic!("{:?}", group[0]) };
        assert_number(&json!(rewards[last]), 0.0);
        assert!(group[0].returns_to_go().iter().all(|number| number.is_finite()));
    }
}
