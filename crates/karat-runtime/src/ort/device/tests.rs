//! The GPU's executor on the processor's memory: everything but the GPU.

use std::sync::Arc;

use karat_rules::domain::{Cut, TokenizedInput};

use super::*;
use crate::{
    Provider,
    ort::{
        Graph, GraphFile, Sessions,
        testing::{DataType, GraphWriter, library},
    },
};

fn batch(samples: &[&[u32]]) -> TokenBatch {
    let input = |ids: &&[u32]| {
        Arc::new(TokenizedInput::new(ids.to_vec(), vec![0; ids.len()], 0..ids.len(), Cut::default()).unwrap())
    };
    TokenBatch::new(samples.iter().map(input).collect()).unwrap()
}

/// Gives each sample's sum of its ids without padding, as one number and as two halves, and each token's id.
fn sums(integers: DataType) -> GraphWriter {
    GraphWriter::default()
        .input("input_ids", integers, &["batch", "tokens"])
        .input("attention_mask", integers, &["batch", "tokens"])
        .integers("first", &[1])
        .cast("input_ids", "ids", DataType::Float)
        .cast("attention_mask", "mask", DataType::Float)
        .node("Mul", &["ids", "mask"], "masked", &[])
        .node("ReduceSum", &["masked", "first"], "sum", &[("keepdims", 0)])
        .node("ReduceSum", &["masked", "first"], "column", &[("keepdims", 1)])
        .node("Concat", &["column", "column"], "pair", &[("axis", 1)])
        .cast("pair", "halves", DataType::Float16)
        .output("sum", DataType::Float, &["batch"])
        .output("halves", DataType::Float16, &["batch", "2"])
        .output("masked", DataType::Float, &["batch", "tokens"])
}

fn binding() -> GraphBinding {
    GraphBinding {
        input_ids: "input_ids".to_owned(),
        attention_mask: Some("attention_mask".to_owned()),
        token_type_ids: None,
        position_ids: None,
        outputs: ["masked", "sum", "halves"].map(str::to_owned).to_vec(),
        pad_id: 77,
    }
}

fn open(graph: GraphWriter) -> (tempfile::TempDir, Graph) {
    let (folder, path) = graph.write();
    let graph = library().open(&GraphFile { path: &path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap();
    (folder, graph)
}

fn executor(graph: &Graph, captures: Option<Option<NonZeroUsize>>) -> Result<DeviceExecutor, RuntimeError> {
    DeviceExecutor::new(graph.new_session()?, graph.signature(), &binding(), Memory::Host, captures)
}

fn row(shape: &[usize], values: &[f32]) -> RowTensor {
    RowTensor::new(shape.to_vec(), values.to_vec()).unwrap()
}

fn expected(ids: &[u32]) -> Vec<RowTensor> {
    #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
    let numbers: Vec<f32> = ids.iter().map(|&id| id as f32).collect();
    let sum = numbers.iter().sum();
    vec![row(&[ids.len()], &numbers), row(&[1], &[sum]), row(&[2], &[sum, sum])]
}

#[test]
fn each_sample_gets_its_own_rows_with_and_without_captures() {
    let samples: [&[&[u32]]; 4] =
        [&[&[9], &[5, 6, 7]], &[&[4, 4, 4, 4, 4, 4, 4, 4, 4]], &[&[1], &[2, 2], &[3], &[4], &[5, 1]], &[&[9]]];
    for integers in [DataType::Int64, DataType::Int32] {
        let (_folder, graph) = open(sums(integers));
        for captures in [None, Some(None), Some(NonZeroUsize::new(10))] {
            let mut executor = executor(&graph, captures).unwrap();
            // Twice, growing and shrinking: nothing of an earlier pass may be left in what is kept.
            for _ in 0..2 {
                for samples in samples {
                    let rows = executor.run(&batch(samples), &Cancellation::new()).unwrap();
                    let expected: Vec<_> = samples.iter().map(|ids| expected(ids)).collect();
                    assert_eq!(rows, expected, "{captures:?}");
                }
            }
            let captured = executor.captures.as_ref().map_or(0, |captures| captures.passes.len());
            assert_eq!(captured > 1, captures.is_some(), "passes are captured only where that was asked for");
        }
    }
}

#[test]
fn passes_that_are_rounded_up_give_each_sample_its_own_rows() {
    let (_folder, graph) = open(sums(DataType::Int64));
    let shapes = Shapes::new(NonZeroUsize::new(40).unwrap());
    let mut executor = executor(&graph, None).unwrap().in_shapes(Some(shapes));
    let samples: [&[&[u32]]; 3] = [&[&[9], &[5, 6, 7], &[2]], &[&[4; 33]], &[&[1], &[2, 2], &[3], &[4], &[5; 39]]];
    for samples in samples {
        let rows = executor.run(&batch(samples), &Cancellation::new()).unwrap();
        assert_eq!(rows, samples.iter().map(|ids| expected(ids)).collect::<Vec<_>>());
    }
    assert_eq!(executor.shapes(), Some(shapes));
    executor.allow_rounding(false);
    assert_eq!(executor.shapes(), None, "where padding changes scores, nothing is rounded");
    assert_eq!(executor.run(&batch(&[&[9]]), &Cancellation::new()).unwrap(), [expected(&[9])]);
}

#[test]
fn few_shapes_are_captured_and_none_is_longer_than_the_longest_sample() {
    let longest = NonZeroUsize::new(500);
    assert_eq!(rounded([1, 5], longest), Some([1, 8]));
    assert_eq!(rounded([5, 130], longest), Some([6, 144]));
    assert_eq!(rounded([1, 499], longest), Some([1, 500]));
    assert_eq!(rounded([1, 499], None), Some([1, 512]));
    assert_eq!(rounded([9, 5], longest), None, "many samples keep a GPU busy without a capture");
    assert_eq!(rounded([8, 600], None), None);
    let mut shapes = std::collections::BTreeSet::new();
    for samples in 1..=8 {
        for tokens in 1..=512 {
            let [rows, length] = rounded([samples, tokens], None).unwrap();
            assert!(rows >= samples && length >= tokens);
            assert!(length - tokens < 8.max(tokens / 8 + 1), "{tokens} tokens are padded to {length}");
            shapes.insert([rows, length]);
        }
    }
    assert!(shapes.len() <= 2 * MOST_CAPTURES, "{}", shapes.len());
}

#[test]
fn captures_beyond_the_most_run_as_they_are() {
    let (_folder, graph) = open(sums(DataType::Int64));
    let mut executor = executor(&graph, Some(None)).unwrap();
    for tokens in (1..=200).step_by(8) {
        for rows in 1..=6 {
            let ids = vec![3; tokens];
            let samples = vec![ids.as_slice(); rows];
            let results = executor.run(&batch(&samples), &Cancellation::new()).unwrap();
            assert_eq!(results[rows - 1], expected(&ids));
        }
    }
    assert_eq!(executor.captures.unwrap().passes.len(), MOST_CAPTURES);
}

#[test]
fn an_output_of_unknown_size_can_not_be_captured() {
    let graph = GraphWriter::default()
        .input("input_ids", DataType::Int64, &["batch", "tokens"])
        .input("attention_mask", DataType::Int64, &["batch", "tokens"])
        .cast("input_ids", "masked", DataType::Float)
        .output("masked", DataType::Float, &["batch", "labels"]);
    let (_folder, graph) = open(graph);
    let binding = GraphBinding { outputs: vec!["masked".to_owned()], ..binding() };
    let new = |captures| {
        DeviceExecutor::new(graph.new_session().unwrap(), graph.signature(), &binding, Memory::Host, captures)
    };
    assert!(new(None).is_ok());
    let error = new(Some(None)).err().unwrap().to_string();
    assert!(error.contains("masked") && error.contains("cuda_graph = false"), "{error}");
}

#[test]
fn a_cancelled_pass_leaves_the_session_usable() {
    let (_folder, graph) = open(sums(DataType::Int64));
    for captures in [None, Some(None)] {
        let mut executor = executor(&graph, captures).unwrap();
        let cancelled = Cancellation::new();
        cancelled.cancel();
        assert!(matches!(executor.run(&batch(&[&[1]]), &cancelled), Err(RuntimeError::Cancelled)));
        assert!(executor.run(&batch(&[&[1]]), &Cancellation::new()).is_ok());
    }
}
