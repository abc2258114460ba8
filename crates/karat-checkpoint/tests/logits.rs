//! A language model's graph with the logits of a few tokens: what it computes, and with which weights.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::{collections::BTreeSet, num::NonZeroUsize, path::Path};

use karat_checkpoint::{Checkpoint, Element, Form, Graph, NumbersMut, Origin, Tensor};
use karat_onnx::StringStringEntryProto;

const TOKENS: [u32; 3] = [7, 8, 200];

fn open(folder: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(folder);
    Checkpoint::read(&Origin::whole(&folder)).unwrap()
}

fn of_tokens(checkpoint: &Checkpoint, form: Form) -> Graph {
    checkpoint.graph_reading(form, &BTreeSet::from(TOKENS)).unwrap()
}

/// The weight that the logits are a product with.
fn matrix(graph: &Graph) -> &Tensor {
    let nodes = &graph.model.graph.as_ref().unwrap().node;
    let product = nodes.iter().find(|node| node.output == ["logits"]).unwrap();
    graph.tensors.iter().find(|tensor| tensor.name == product.input[1]).unwrap()
}

fn logits_of(graph: &Graph) -> Option<&str> {
    let metadata = &graph.model.metadata_props;
    metadata.iter().find(|entry| entry.key() == "karat.logits").map(StringStringEntryProto::value)
}

/// The numbers of one of a graph's weights.
fn numbers(checkpoint: &Checkpoint, graph: &Graph, name: &str) -> Vec<f32> {
    let mut all: Vec<Vec<f32>> = graph.tensors.iter().map(|tensor| vec![0.0; tensor.shape.iter().product()]).collect();
    let memory = all.iter_mut().map(|numbers| NumbersMut::Float32(numbers));
    checkpoint.read_weights(graph, memory, NonZeroUsize::MIN, &|_| ()).unwrap();
    let place = graph.tensors.iter().position(|tensor| tensor.name == name).unwrap();
    all.swap_remove(place)
}

#[test]
fn the_matrix_has_the_rows_of_those_tokens_alone() {
    // One whose logits are taken from the table of embeddings, and one with a matrix of its own.
    for folder in ["graphs/tiny_decoder_lm", "checkpoints/math-shepherd"] {
        let checkpoint = open(folder);
        let (whole, some) = (checkpoint.graph(), of_tokens(&checkpoint, Form::Rows));
        assert_eq!((logits_of(whole), logits_of(&some)), (None, Some("7 8 200")), "{folder}");
        let (all, few) = (matrix(whole), matrix(&some));
        assert_eq!(few.shape, [3, 16], "{folder}");
        let (all, few) = (numbers(&checkpoint, whole, &all.name), numbers(&checkpoint, &some, &few.name));
        let rows = TOKENS.map(|token| &all[token as usize * 16..][..16]);
        assert_eq!(few, rows.concat(), "{folder}");
        assert!(some.memory(true, true) < whole.memory(true, true), "{folder}");
    }
}

#[test]
fn few_logits_are_computed_in_32_bits() {
    let checkpoint = open("checkpoints/math-shepherd");
    let form = Form::Packed(Element::Bfloat16);
    let whole = checkpoint.graph_for(form).unwrap();
    assert_eq!(matrix(&whole).element, Element::Bfloat16);
    assert_eq!(matrix(&of_tokens(&checkpoint, form)).element, Element::Float32);
}

#[test]
fn a_token_that_the_model_has_not_is_told() {
    let error = open("checkpoints/math-shepherd").graph_reading(Form::Rows, &BTreeSet::from([5, 264]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("token 264") && error.contains("264 tokens"), "{error}");
}

#[test]
fn other_heads_read_no_tokens() {
    let checkpoint = open("checkpoints/llama3");
    assert_eq!(of_tokens(&checkpoint, Form::Rows).model, checkpoint.graph().model);
}
