//! Manifests as users write them, right and wrong.

use std::fs;

use karat_hub::HubSettings;
use karat_rules::domain::{Dimension, ElementType, GraphSignature, TensorSpec};
use tempfile::TempDir;

use super::*;

const GRAPH: &str = r#"
[graph]
file = "model.onnx"

[text]
render = "pair"
max_tokens = 512
"#;

fn define(toml: &str) -> Result<Definition, ManifestError> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(FILE_NAME), toml).unwrap();
    fs::write(folder.path().join("model.onnx"), b"").unwrap();
    let settings = HubSettings { cache: folder.path().to_owned(), endpoint: String::new(), offline: true, token: None };
    let hub = Hub::new(settings);
    Definition::new(Written::read(folder.path(), &hub)?.manifest, folder.path(), &hub)
}

fn graph(toml: &str) -> GraphDefinition {
    match define(toml).unwrap() {
        Definition::Graph(definition) => *definition,
        Definition::Composite(_) => panic!("not a composite"),
    }
}

fn dynamic(names: &[&str]) -> Vec<Dimension> {
    names.iter().map(|name| Dimension::Dynamic((*name).to_owned())).collect()
}

fn tensor(name: &str, element: ElementType, shape: Vec<Dimension>) -> TensorSpec {
    TensorSpec { name: name.to_owned(), element, shape }
}

fn bert(outputs: Vec<TensorSpec>) -> GraphSignature {
    let ids = |name| tensor(name, ElementType::Int64, dynamic(&["batch", "sequence"]));
    GraphSignature { inputs: ["input_ids", "attention_mask", "token_type_ids"].map(ids).to_vec(), outputs }
}

fn logits(scores: usize) -> TensorSpec {
    tensor("logits", ElementType::Float32, vec![Dimension::Dynamic("batch".to_owned()), Dimension::Fixed(scores)])
}

#[test]
fn more_tokens_than_any_model_takes_are_refused() {
    let error = define(&GRAPH.replace("512", "1000000000000000000")).unwrap_err().to_string();
    assert!(error.contains("text.max_tokens") && error.contains("16777216"), "{error}");
}

#[test]
fn a_minimal_manifest_binds_by_the_usual_names() {
    let binding = bind_graph(&graph(GRAPH), &bert(vec![logits(1)]), 7).unwrap();
    assert_eq!(binding.input_ids, "input_ids");
    assert_eq!(binding.token_type_ids.as_deref(), Some("token_type_ids"));
    assert_eq!((binding.position_ids, binding.pad_id), (None, 7));
    assert_eq!(binding.outputs, ["logits"]);
}

#[test]
fn what_contradicts_itself_is_refused_with_its_key() {
    let cases = [
        ("", "graph"),
        ("[graph]\nfile = \"model.onnx\"", "text"),
        (&format!("{GRAPH}\n[[ensemble]]\nmodel = \"other\""), "ensemble"),
        (&GRAPH.replace("model.onnx", "missing.onnx"), "graph.file"),
        (&GRAPH.replace("\"model.onnx\"", "[]"), "graph.file"),
        (&GRAPH.replace("file = \"model.onnx\"", "checkpoint = []"), "graph.checkpoint"),
        (
            &format!(
                "head = {{ implicit = {{ beta = 0.1 }} }}\n{}",
                GRAPH.replace("file = \"model.onnx\"", "checkpoint = \".\"")
            ),
            "graph.checkpoint",
        ),
        (&GRAPH.replace("\"model.onnx\"", "\"model.onnx\"\noutput = []"), "graph.output"),
        (&GRAPH.replace("\"model.onnx\"", "\"model.onnx\"\nform = \"packed\""), "graph.form"),
        (&format!("head = \"scalr\"\n{GRAPH}"), "head"),
        (&format!("head = {{ multi = {{ members = 0 }} }}\n{GRAPH}"), "head"),
        (&format!("aggregate = {{ uncertainty_weighted = {{ lambda = -1 }} }}\n{GRAPH}"), "aggregate"),
        (&format!("transforms = [\"delta\"]\n{GRAPH}"), "transforms"),
        (&format!("providers = []\n{GRAPH}"), "providers"),
        (
            &format!(
                "providers = [\"tensorrt\", \"cuda\"]\n{}",
                GRAPH.replace("file = \"model.onnx\"", "checkpoint = \".\"\nform = \"packed\"")
            ),
            "providers",
        ),
    ];
    for (toml, expected) in cases {
        match define(toml) {
            Err(ManifestError::Key { key, path, .. }) => {
                assert_eq!(key, expected, "{toml}");
                assert!(path.ends_with(FILE_NAME));
            }
            other => panic!("{toml}: {other:?}"),
        }
    }
}

#[test]
fn unknown_and_mistyped_keys_are_named_with_their_line() {
    for (toml, needle) in [
        (format!("heads = \"scalar\"\n{GRAPH}"), "heads"),
        (GRAPH.replace("512", "0"), "max_tokens"),
        (GRAPH.replace("\"pair\"", "\"pairs\""), "pairs"),
        (GRAPH.replace("[text]", "[text"), "line"),
        (format!("[[ensemble]]\nmodel = \"../etc\"\n{GRAPH}"), "../etc"),
    ] {
        let error = define(&toml).unwrap_err();
        assert!(matches!(error, ManifestError::Syntax { .. }), "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }
}

#[test]
fn a_graph_that_does_not_fit_is_refused_with_what_to_write() {
    let fixed = |inputs: Vec<TensorSpec>| GraphSignature { inputs, outputs: vec![logits(1)] };
    let shape = dynamic(&["batch", "sequence"]);
    let ids = || tensor("input_ids", ElementType::Int64, shape.clone());
    let two = bert(vec![logits(1), tensor("hidden", ElementType::Float32, shape.clone())]);
    let cases = [
        (GRAPH.to_owned(), bert(vec![logits(5)]), "members = 5"),
        (GRAPH.to_owned(), fixed(vec![tensor("tokens", ElementType::Int64, shape.clone())]), "\"tokens\""),
        (GRAPH.to_owned(), fixed(vec![ids(), tensor("pixels", ElementType::Float32, shape.clone())]), "pixels"),
        (GRAPH.to_owned(), fixed(vec![tensor("input_ids", ElementType::Float32, shape.clone())]), "int64"),
        (
            GRAPH.to_owned(),
            fixed(vec![tensor("input_ids", ElementType::Int64, vec![Dimension::Fixed(1), Dimension::Fixed(512)])]),
            "dynamic",
        ),
        (GRAPH.replace("\"model.onnx\"", "\"model.onnx\"\noutput = \"score\""), two.clone(), "\"hidden\""),
        (
            GRAPH.replace("\"model.onnx\"", "\"model.onnx\"\ninputs = { attention_mask = \"mask\" }"),
            two.clone(),
            "\"attention_mask\"",
        ),
        (GRAPH.to_owned(), GraphSignature { outputs: Vec::new(), ..two }, "logits"),
    ];
    for (toml, signature, needle) in cases {
        let error = bind_graph(&graph(&toml), &signature, 0).unwrap_err().to_string();
        assert!(error.contains(needle), "{needle}: {error}");
    }
}

#[test]
fn several_graphs_and_renamed_inputs_are_taken() {
    let toml = GRAPH.replace(
        "\"model.onnx\"",
        "[\"model.onnx\", \"model.onnx\"]\noutput = \"logits\"\ninputs = { input_ids = \"ids\" }",
    );
    let definition = graph(&toml);
    assert_eq!(definition.graphs.len(), 2);
    let mut signature = bert(vec![logits(1)]);
    signature.inputs[0].name = "ids".to_owned();
    assert_eq!(bind_graph(&definition, &signature, 0).unwrap().input_ids, "ids");
}

#[test]
fn a_composite_names_its_members() {
    let toml = r#"
        aggregate = "sum"
        [[ensemble]]
        model = "relevance"
        transforms = [{ log_sigmoid = { reference = 1.5 } }]
        [[ensemble]]
        model = "harmless"
        aggregate = "worst_case"
    "#;
    let Definition::Composite(composite) = define(toml).unwrap() else { panic!("not a graph") };
    assert_eq!(composite.members[0].model.as_str(), "relevance");
    assert_eq!(composite.members[0].transforms.as_ref().unwrap()[0].name, "log_sigmoid");
    assert_eq!(composite.members[1].aggregate.as_ref().unwrap().name, "worst_case");
}

#[test]
fn the_reference_page_holds_every_key() {
    let page = reference();
    for needle in ["`max_tokens`", "`prompt_start`", "`ensemble`"] {
        assert!(page.replace("\"", "").contains(needle), "{needle}");
    }
}
