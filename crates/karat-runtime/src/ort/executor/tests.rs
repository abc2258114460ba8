//! Executors on graphs whose results can be worked out by hand.

use std::{num::NonZeroUsize, path::Path};

use karat_rules::domain::{Cut, TokenizedInput};

use super::*;
use crate::{
    Provider,
    ort::{
        Graph, GraphFile, Sessions,
        testing::{DataType, GraphWriter, library},
    },
};

fn input(ids: &[u32]) -> Arc<TokenizedInput> {
    // The second half of each sample is its second segment.
    let segments = (0..ids.len()).map(|at| u32::from(at >= ids.len() / 2)).collect();
    Arc::new(TokenizedInput::new(ids.to_vec(), segments, 0..ids.len(), Cut::default()).unwrap())
}

fn batch(samples: &[&[u32]]) -> TokenBatch {
    TokenBatch::new(samples.iter().map(|ids| input(ids)).collect()).unwrap()
}

fn open(path: &Path) -> Graph {
    library().open(&GraphFile { path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap()
}

fn binding(outputs: &[&str]) -> GraphBinding {
    GraphBinding {
        input_ids: "input_ids".to_owned(),
        attention_mask: Some("attention_mask".to_owned()),
        token_type_ids: Some("token_type_ids".to_owned()),
        position_ids: Some("position_ids".to_owned()),
        outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
        pad_id: 77,
    }
}

/// For graphs that take nothing but the tokens.
fn ids_only(outputs: &[&str]) -> GraphBinding {
    GraphBinding { attention_mask: None, token_type_ids: None, position_ids: None, ..binding(outputs) }
}

/// A graph whose outputs show what each input was fed, in every shape that heads read.
fn mirror(integers: DataType) -> GraphWriter {
    let axes = &["batch", "tokens"];
    let mut graph =
        GraphWriter::default().integers("last", &[2]).integers("first", &[1]).floats("unused", &[1], &[0.0]);
    for name in ["input_ids", "attention_mask", "token_type_ids", "position_ids"] {
        graph = graph.input(name, integers, axes).cast(name, &format!("{name}_float"), DataType::Float).node(
            "Unsqueeze",
            &[&format!("{name}_float"), "last"],
            &format!("{name}_column"),
            &[],
        );
    }
    graph
        .node("Mul", &["input_ids_float", "attention_mask_float"], "masked", &[])
        .node("ReduceSum", &["masked", "first"], "sum", &[("keepdims", 0)])
        .node("ReduceSum", &["masked", "first"], "column", &[("keepdims", 1)])
        .node("Concat", &["column", "column"], "pair", &[("axis", 1)])
        .cast("pair", "half", DataType::Float16)
        .node(
            "Concat",
            &["input_ids_column", "attention_mask_column", "token_type_ids_column", "position_ids_column"],
            "fed",
            &[("axis", 2)],
        )
        .node("Identity", &["input_ids_float"], "ids", &[])
        .output("sum", DataType::Float, &["batch"])
        .output("pair", DataType::Float, &["batch", "2"])
        .output("half", DataType::Float16, &["batch", "2"])
        .output("fed", DataType::Float, &["batch", "tokens", "4"])
        .output("ids", DataType::Float, axes)
}

/// A graph that would run for hours: a loop of 2^40 steps.
fn endless() -> GraphWriter {
    let body = GraphWriter::default()
        .input("step", DataType::Int64, &[])
        .input("condition", DataType::Bool, &[])
        .input("carried", DataType::Float, &["batch", "tokens"])
        .node("Identity", &["condition"], "go_on", &[])
        .node("Abs", &["carried"], "next", &[])
        .output("go_on", DataType::Bool, &[])
        .output("next", DataType::Float, &["batch", "tokens"]);
    GraphWriter::default()
        .input("input_ids", DataType::Int64, &["batch", "tokens"])
        .integers("steps", &[1 << 40])
        .cast("input_ids", "start", DataType::Float)
        .control("Loop", &["steps", "", "start"], "scores", &[("body", &body)])
        .output("scores", DataType::Float, &["batch", "tokens"])
}

fn row(shape: &[usize], values: &[f32]) -> RowTensor {
    RowTensor::new(shape.to_vec(), values.to_vec()).unwrap()
}

#[test]
fn each_sample_gets_its_own_rows_without_padding() {
    for integers in [DataType::Int64, DataType::Int32] {
        let (_folder, path) = mirror(integers).write();
        let mut executor =
            open(&path).executor(&binding(&["fed", "sum", "pair", "half", "ids"]), NonZeroUsize::MIN).unwrap();
        let long = [
            row(&[3, 4], &[5.0, 1.0, 0.0, 0.0, 6.0, 1.0, 1.0, 1.0, 7.0, 1.0, 1.0, 2.0]),
            row(&[1], &[18.0]),
            row(&[2], &[18.0, 18.0]),
            row(&[2], &[18.0, 18.0]),
            row(&[3], &[5.0, 6.0, 7.0]),
        ];
        let short = [
            row(&[1, 4], &[9.0, 1.0, 1.0, 0.0]),
            row(&[1], &[9.0]),
            row(&[2], &[9.0, 9.0]),
            row(&[2], &[9.0, 9.0]),
            row(&[1], &[9.0]),
        ];
        // Twice, growing and shrinking: nothing of an earlier batch may be left in the buffers.
        for _ in 0..2 {
            let rows = executor.run(&batch(&[&[9], &[5, 6, 7]]), &Cancellation::new()).unwrap();
            assert_eq!(rows, [short.to_vec(), long.to_vec()]);
            let rows = executor.run(&batch(&[&[9]]), &Cancellation::new()).unwrap();
            assert_eq!(rows, [short.to_vec()]);
        }
    }
}

#[test]
fn shorter_samples_are_filled_up_with_the_padding_token() {
    // One output whose token axis bears another name: taken as it is, padding included.
    let (_folder, path) = GraphWriter::default()
        .input("input_ids", DataType::Int64, &["batch", "tokens"])
        .cast("input_ids", "ids", DataType::Float)
        .output("ids", DataType::Float, &["batch", "labels"])
        .write();
    let only_ids = ids_only(&["ids"]);
    let mut executor = open(&path).executor(&only_ids, NonZeroUsize::MIN).unwrap();
    let rows = executor.run(&batch(&[&[1, 2, 3], &[4]]), &Cancellation::new()).unwrap();
    assert_eq!(rows[1], [row(&[3], &[4.0, 77.0, 77.0])]);
}

#[test]
fn a_large_pass_gives_the_same_numbers() {
    let (_folder, path) = mirror(DataType::Int64).write();
    let mut executor = open(&path).executor(&binding(&["sum"]), NonZeroUsize::MIN).unwrap();
    let ids = vec![1; LARGE_PASS.isqrt() + 1];
    let rows = executor.run(&batch(&[&ids]), &Cancellation::new()).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
    let expected = ids.len() as f32;
    assert_eq!(rows, [[row(&[1], &[expected])]]);
}

#[test]
fn a_cancelled_pass_leaves_the_session_usable() {
    let (_folder, path) = mirror(DataType::Int64).write();
    let mut executor = open(&path).executor(&binding(&["sum"]), NonZeroUsize::MIN).unwrap();
    let cancelled = Cancellation::new();
    cancelled.cancel();
    assert!(matches!(executor.run(&batch(&[&[1]]), &cancelled), Err(RuntimeError::Cancelled)));
    assert!(executor.run(&batch(&[&[1]]), &Cancellation::new()).is_ok());
}

#[test]
fn a_running_pass_can_be_stopped_from_another_thread() {
    let (_folder, path) = endless().write();
    let only_ids = ids_only(&["scores"]);
    let mut executor = open(&path).executor(&only_ids, NonZeroUsize::MIN).unwrap();
    let cancellation = Cancellation::new();
    std::thread::scope(|scope| {
        scope.spawn(|| cancellation.cancel());
        assert!(matches!(executor.run(&batch(&[&[1]]), &cancellation), Err(RuntimeError::Cancelled)));
    });
}

/// A graph that needs 2^45 bytes for each token.
fn greedy() -> GraphWriter {
    GraphWriter::default()
        .input("input_ids", DataType::Int64, &["batch", "tokens"])
        .integers("sizes", &[1 << 20, 1 << 23, 1, 1])
        .integers("axes", &[0, 1])
        .cast("input_ids", "ids", DataType::Float)
        .node("Expand", &["ids", "sizes"], "many", &[])
        .node("ReduceMax", &["many"], "most", &[("keepdims", 0)])
        .node("Mul", &["ids", "most"], "scores", &[])
        .output("scores", DataType::Float, &["batch", "tokens"])
}

#[test]
fn a_pass_that_memory_does_not_hold_is_told_from_a_failed_one() {
    let (_folder, path) = greedy().write();
    let only_ids = ids_only(&["scores"]);
    let mut executor = open(&path).executor(&only_ids, NonZeroUsize::MIN).unwrap();
    for _ in 0..2 {
        let error = executor.run(&batch(&[&[1, 2, 3], &[4]]), &Cancellation::new()).unwrap_err();
        assert!(matches!(error, RuntimeError::OutOfMemory { samples: 2, tokens: 3, .. }), "{error}");
    }
}

#[test]
fn a_binding_that_does_not_fit_names_what_does() {
    let (_folder, path) = mirror(DataType::Int64).write();
    let graph = open(&path);
    let message = |binding: &GraphBinding| graph.executor(binding, NonZeroUsize::MIN).err().unwrap().to_string();
    for (wrong, part) in [
        (binding(&["logits"]), "name one of: sum, pair, half, fed, ids"),
        (binding(&[]), "no output"),
        (GraphBinding { input_ids: "tokens".to_owned(), ..binding(&["sum"]) }, "\"tokens\""),
        (GraphBinding { position_ids: None, ..binding(&["sum"]) }, "nothing feeds the input position_ids"),
    ] {
        assert!(message(&wrong).contains(part), "{}", message(&wrong));
    }
}

#[test]
fn a_graph_of_fixed_shape_is_refused() {
    let (_folder, path) = GraphWriter::default()
        .input("input_ids", DataType::Int64, &["1", "128"])
        .cast("input_ids", "ids", DataType::Float)
        .output("ids", DataType::Float, &["1", "128"])
        .write();
    let only_ids = ids_only(&["ids"]);
    let error = open(&path).executor(&only_ids, NonZeroUsize::MIN).err().unwrap().to_string();
    assert!(error.contains("dynamic axes"), "{error}");
}
