//! The rows in 32 bits that a GPU gets (`rm-prefix/1`), computed on the processor.

use std::num::NonZeroUsize;

use karat_checkpoint::Form;
use karat_rules::domain::RowTensor;
use karat_runtime::{Cancellation, DecoderRow, Past, Purpose, Read, ReadAt, Span};

use crate::{
    assert_close, model, scores,
    texts::{self, Text},
};

/// The row of a text's tokens from one on, behind what is known of those before it.
fn row(text: &Text, from: usize, to: usize, past: Vec<Past>) -> DecoderRow {
    let read = |at: &usize| ReadAt { at: at - from, output: 0, what: Read::Numbers };
    let span = Span {
        tokens: text.tokens[from..to].to_vec(),
        position: from,
        sees_past: past.iter().map(|past| past.range.clone()).collect(),
        sees_new: Vec::new(),
    };
    DecoderRow {
        past,
        spans: vec![span],
        reads: text.reads.iter().filter(|at| (from..to).contains(*at)).map(read).collect(),
        keep: std::iter::once(0..to - from).collect(),
    }
}

#[test]
fn rows_for_gpus_give_the_scores_of_transformers_behind_a_past_too() {
    let mut seen = 0;
    for folder in texts::recorded() {
        let graph = model::open(&folder, Form::GpuRows).unwrap().unwrap();
        let Some(output) = graph.decoder_outputs().first() else { continue };
        seen += 1;
        let output = [output.name.clone()];
        let mut decoder = graph.decoder_executor(&output, NonZeroUsize::MIN, Purpose::Scoring).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy();
        for mut text in texts::of(&folder) {
            if let (Some(padding), false) = (graph.decoder_padding(), text.by_steps) {
                text.reads = vec![padding.score_position(&text.tokens)];
            }
            let (half, all) = (text.tokens.len() / 2, text.tokens.len());
            let first = decoder.forward(&row(&text, 0, half, Vec::new()), &Cancellation::new()).unwrap();
            let past = first.kept.into_iter().map(Past::all).collect();
            let second = decoder.forward(&row(&text, half, all, past), &Cancellation::new()).unwrap();
            let read: Vec<f32> = first.reads.iter().chain(&second.reads).flat_map(RowTensor::values).copied().collect();
            assert_close(&name, &scores(&text, &read), &text.wanted);
        }
    }
    assert!(seen > 15, "{seen}");
}
