//! Rows through a graph that shows what each token sees: the mean of the seen tokens' ids and of their positions.

use std::{num::NonZeroUsize, path::PathBuf};

use karat_rules::domain::RowTensor;
use tempfile::TempDir;

use super::*;
use crate::{
    Numbers, Provider, Purpose, Read, ReadAt, Span,
    ort::{
        Graph, GraphFile, Sessions,
        testing::{DataType, GraphWriter, library},
    },
};

/// Two heads: the first one's keys and values are a token's id and its position, the second one's ten times that.
fn mirror() -> (TempDir, PathBuf) {
    let past = &["1", "2", "past", "1"];
    let mut graph = GraphWriter::default()
        .metadata("karat.contract", "rm-prefix/1")
        .metadata("karat.layers", "1")
        .metadata("karat.kv_heads", "2")
        .metadata("karat.head_dim", "1")
        .metadata("karat.context", "100")
        .input("input_ids", DataType::Int64, &["1", "new"])
        .input("position_ids", DataType::Int64, &["1", "new"])
        .input("attn_bias", DataType::Float, &["1", "1", "new", "all"])
        .input("score_positions", DataType::Int64, &["read"])
        .input("past_key_values.0.key", DataType::Float, past)
        .input("past_key_values.0.value", DataType::Float, past)
        .floats("one_and_ten", &[1, 2, 1, 1], &[1.0, 10.0])
        .integers("axes", &[1, 3])
        .integers("outer", &[0])
        .node("Softmax", &["attn_bias"], "weights", &[("axis", -1)]);
    for (input, what) in [("input_ids", "key"), ("position_ids", "value")] {
        let present = format!("present.0.{what}");
        graph = graph
            .cast(input, &format!("{what}_float"), DataType::Float)
            .node("Unsqueeze", &[&format!("{what}_float"), "axes"], &format!("{what}_one"), &[])
            .node("Mul", &[&format!("{what}_one"), "one_and_ten"], &present, &[])
            .node("Concat", &[&format!("past_key_values.0.{what}"), &present], &format!("{what}_all"), &[("axis", 2)])
            .node("MatMul", &["weights", &format!("{what}_all")], &format!("{what}_mean"), &[])
            .output(&present, DataType::Float, past);
    }
    graph
        .node("Concat", &["key_mean", "value_mean"], "means", &[("axis", 1)])
        .node("Transpose", &["means"], "by_token_reversed", &[])
        .integers("shape", &[-1, 4])
        .node("Squeeze", &["by_token_reversed", "outer"], "by_token", &[])
        .node("Reshape", &["by_token", "shape"], "rows", &[])
        .node("Gather", &["rows", "score_positions"], "scores", &[("axis", 0)])
        .output("scores", DataType::Float, &["read", "4"])
        .write()
}

fn open(path: &std::path::Path) -> Graph {
    library().open(&GraphFile { path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap()
}

fn executor() -> (TempDir, Box<dyn DecoderExecutor>) {
    let (folder, path) = mirror();
    (folder, open(&path).decoder_executor(&["scores".to_owned()], NonZeroUsize::MIN, Purpose::Scoring).unwrap())
}

fn numbers(at: usize) -> ReadAt {
    ReadAt { at, output: 0, what: Read::Numbers }
}

/// The means of ids and positions at each read.
fn means(output: &DecoderRowOutput) -> Vec<[f32; 2]> {
    let mean = |read: &RowTensor| {
        let [id, tenfold_id, position, tenfold_position] = read.values() else { panic!("{read:?}") };
        assert!((id * 10.0 - tenfold_id).abs() < 1e-3 && (position * 10.0 - tenfold_position).abs() < 1e-3, "{read:?}");
        [*id, *position]
    };
    output.reads.iter().map(mean).collect()
}

fn span(tokens: &[u32], position: usize) -> Span {
    Span { tokens: tokens.to_vec(), position, ..Span::default() }
}

#[test]
fn tokens_see_their_own_text_and_nothing_else() {
    let (_folder, mut executor) = executor();
    let cancel = Cancellation::new();
    let prompt = DecoderRow {
        spans: vec![span(&[10, 20, 30, 40], 0)],
        reads: vec![numbers(0), numbers(3), numbers(1)],
        keep: vec![0..3, 1..2],
        ..DecoderRow::default()
    };
    let first = executor.forward(&prompt, &cancel).unwrap();
    assert_eq!(means(&first), [[10.0, 0.0], [25.0, 1.5], [15.0, 0.5]]);
    assert_eq!(first.kept[0].tokens(), 3);
    assert_eq!(
        first.kept[0].numbers(),
        &Numbers::Float32([10.0, 20.0, 30.0, 100.0, 200.0, 300.0, 0.0, 1.0, 2.0, 0.0, 10.0, 20.0].as_slice().into())
    );
    assert_eq!(first.kept[1].numbers(), &Numbers::Float32([20.0, 200.0, 1.0, 10.0].as_slice().into()));

    // Two continuations of 10, 20 and a text of its own that follows 20 alone; the last span continues the first.
    let row = DecoderRow {
        past: vec![Past { values: Arc::clone(&first.kept[0]), range: 0..2 }, Past::all(Arc::clone(&first.kept[1]))],
        spans: vec![
            Span { sees_past: vec![0..2], ..span(&[60], 2) },
            Span { sees_past: vec![0..2], ..span(&[3, 7], 2) },
            Span { sees_past: vec![2..3], ..span(&[40], 5) },
            Span { sees_past: vec![0..2], sees_new: vec![0..1], ..span(&[110], 3) },
        ],
        reads: (0..5).map(numbers).collect(),
        keep: Vec::new(),
    };
    for _ in 0..2 {
        let output = executor.forward(&row, &cancel).unwrap();
        assert!(output.kept.is_empty());
        assert_eq!(means(&output), [[30.0, 1.0], [11.0, 1.0], [10.0, 1.5], [30.0, 3.0], [50.0, 1.5]]);
    }
    // Nothing of an earlier row is left, whether it had a past or not.
    assert_eq!(means(&executor.forward(&prompt, &cancel).unwrap()), means(&first));
}

#[test]
fn log_probabilities_are_taken_over_the_whole_output() {
    let (_folder, mut executor) = executor();
    let row = DecoderRow {
        spans: vec![span(&[0, 0], 0)],
        reads: vec![
            ReadAt { at: 0, output: 0, what: Read::LogProbabilities([3, 0].into()) },
            ReadAt { at: 0, output: 0, what: Read::Numbers },
        ],
        ..DecoderRow::default()
    };
    let output = executor.forward(&row, &Cancellation::new()).unwrap();
    // Four zeros: each is a quarter.
    assert!(output.reads[0].values().iter().all(|log| (log - 0.25_f32.ln()).abs() < 1e-6), "{output:?}");
    assert_eq!(output.reads[1].values(), [0.0; 4]);
    let reads = vec![ReadAt { at: 0, output: 0, what: Read::LogProbabilities([4].into()) }];
    let beyond = DecoderRow { reads, ..row };
    assert!(matches!(executor.forward(&beyond, &Cancellation::new()), Err(RuntimeError::Shape { .. })));
    let unknown = DecoderRow { reads: vec![ReadAt { output: 1, ..numbers(0) }], ..beyond };
    assert!(matches!(executor.forward(&unknown, &Cancellation::new()), Err(RuntimeError::Row { .. })));
}

#[test]
fn a_row_that_is_wrong_or_cancelled_leaves_the_executor_usable() {
    let (_folder, mut executor) = executor();
    let row = DecoderRow { spans: vec![span(&[1], 99)], reads: vec![numbers(0)], ..DecoderRow::default() };
    let beyond = DecoderRow { spans: vec![span(&[1], 100)], ..row.clone() };
    let cancelled = Cancellation::new();
    cancelled.cancel();
    assert!(matches!(executor.forward(&beyond, &Cancellation::new()), Err(RuntimeError::Row { .. })));
    assert!(matches!(executor.forward(&row, &cancelled), Err(RuntimeError::Cancelled)));
    assert_eq!(means(&executor.forward(&row, &Cancellation::new()).unwrap()), [[1.0, 99.0]]);
}

#[test]
fn an_output_that_is_not_there_is_refused() {
    let (_folder, path) = mirror();
    let graph = open(&path);
    assert_eq!(graph.decoder_shape().unwrap().bytes_per_token(), 16);
    let error =
        graph.decoder_executor(&["logits".to_owned()], NonZeroUsize::MIN, Purpose::Scoring).err().unwrap().to_string();
    assert!(error.contains("scores"), "{error}");
    let (_folder, path) = GraphWriter::default()
        .input("input_ids", DataType::Int64, &["batch", "tokens"])
        .node("Identity", &["input_ids"], "ids", &[])
        .output("ids", DataType::Int64, &["batch", "tokens"])
        .write();
    assert!(open(&path).decoder_executor(&["ids".to_owned()], NonZeroUsize::MIN, Purpose::Scoring).is_err());
}

#[test]
fn positions_of_the_past_follow_from_who_sees_it() {
    let (_folder, path) = mirror();
    let shape = open(&path).decoder_shape().unwrap();
    let places = Arc::new(KeyValues::zeros(&shape, 8));
    let row = DecoderRow {
        past: vec![Past::all(places)],
        spans: vec![
            // Places are leased as they become free: a text's later tokens may stand before its earlier ones.
            Span { sees_past: vec![4..6, 0..1], ..span(&[1, 2], 3) },
            Span { sees_past: vec![4..6, 2..3], ..span(&[3], 3) },
            Span { sees_past: vec![4..6, 0..1], sees_new: vec![0..2], ..span(&[4, 5], 5) },
            span(&[6, 7], 0),
        ],
        ..DecoderRow::default()
    };
    let mut buffers = IntegerBuffers::default();
    for _ in 0..2 {
        buffers.fill_key_positions(&row);
        assert_eq!(buffers.key_positions, [2, 0, 2, 0, 0, 1, 0, 0, 3, 4, 3, 5, 6, 0, 1]);
    }
}
