//! A graph whose scores depend on the batch is run one sample at a time.

use std::{num::NonZeroUsize, sync::Arc};

use karat_rules::domain::{Cut, TokenizedInput};
use karat_runtime::{
    Cancellation, GraphBinding, Provider, TokenBatch,
    ort::{Graph, GraphFile, Sessions},
};

use serde_json::json;

use crate::support::{Repository, Server, graph_manifest, library, root};

const SMALL: [u32; 3] = [10, 11, 12];
const LARGE: [u32; 3] = [290, 291, 292];

fn graph() -> Graph {
    let path = root().join("tests/graphs/dynamic_int8.onnx");
    library().open(&GraphFile { path: &path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap()
}

/// What the graph says of the first of `samples` when all of them share a pass.
fn run(samples: &[[u32; 3]]) -> f32 {
    let binding = GraphBinding {
        input_ids: "input_ids".to_owned(),
        attention_mask: Some("attention_mask".to_owned()),
        token_type_ids: None,
        position_ids: None,
        outputs: vec!["logits".to_owned()],
        pad_id: 9,
    };
    let mut executor = graph().executor(&binding, NonZeroUsize::MIN).unwrap();
    let inputs = samples.iter().map(|ids| TokenizedInput::new(ids.to_vec(), vec![0; 3], 0..3, Cut::default()));
    let batch = TokenBatch::new(inputs.map(|input| Arc::new(input.unwrap())).collect()).unwrap();
    executor.run(&batch, &Cancellation::new()).unwrap()[0][0].values()[0]
}

#[tokio::test]
async fn its_scores_are_the_same_alone_and_in_a_batch() {
    assert!(!graph().is_batch_invariant());
    let alone = run(&[SMALL]);
    assert!((alone - run(&[SMALL, LARGE])).abs() > 1e-3, "the graph shows nothing unless its batch matters");

    let repository = Repository::empty();
    repository.add_graph("dynamic_int8", "");
    repository.add("sum", &(graph_manifest("", "sum") + "[scheduling]\nsessions = 1\n"), &["sum"]);
    let server = Server::of(&repository).await;
    for texts in [&["10 11 12"][..], &["290 291 292", "10 11 12"], &["10 11 12", "290 291 292"]] {
        // One unknown text more, so that not everything is answered out of the cache.
        let rewards = server.rewards("dynamic_int8", &[texts, &["200 201 202"]].concat()).await;
        let position = texts.iter().position(|text| *text == "10 11 12").unwrap();
        assert_eq!(rewards[position].to_bits(), f64::from(alone).to_bits());
    }
    let runs_alone =
        async |model: &str| server.get(&format!("/v1/models/{model}")).await.body["graphs"][0]["runs_alone"].clone();
    assert_eq!((runs_alone("dynamic_int8").await, runs_alone("sum").await), (json!(true), json!(false)));

    // The same texts do share a pass where that is harmless.
    let passes = |model| server.metric(&format!("karat_forward_pass_seconds_count{{model=\"{model}\"}}"));
    for (model, expected) in [("dynamic_int8", 4), ("sum", 1)] {
        let before = passes(model);
        server.rewards(model, &["20 21 22", "30 31 32", "40 41 42", "50 51 52"]).await;
        assert_eq!(passes(model) - before, expected, "{model}");
    }
}
