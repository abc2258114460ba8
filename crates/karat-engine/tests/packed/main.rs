//! Packed rows from checkpoint to score: every recorded checkpoint that has the form `rm-packed/1` gives the scores of
//! Transformers, whatever stands beside a text in its pass and wherever what it begins with comes from; and so do the
//! rows that a GPU gets of those that have no packed ones in 16 bits.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

mod long;
mod model;
mod rows;
mod texts;

use karat_checkpoint::{Element, Form};
use karat_runtime::{Cancellation, RuntimeError, packed::PackedPass};

use model::Model;
use texts::{Layout, Text};

/// How far a score may be from the one that was recorded, in 32 bits.
const TOLERANCE: f32 = 1e-4;

#[track_caller]
fn assert_close(what: &str, found: &[f32], wanted: &[f32]) {
    let close = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= TOLERANCE);
    assert!(close && found.len() == wanted.len(), "{what}: {found:?} is not {wanted:?}");
}

/// The scores among what was read: rewards as they are, of steps the probability of the second class.
fn scores(text: &Text, read: &[f32]) -> Vec<f32> {
    if !text.by_steps {
        return read.to_vec();
    }
    read.chunks_exact(2).map(|classes| 1.0 / (1.0 + (classes[0] - classes[1]).exp())).collect()
}

#[test]
fn every_checkpoint_gives_the_scores_of_transformers_alone_and_packed() {
    let mut seen = 0;
    for folder in texts::recorded() {
        let name = folder.file_name().unwrap().to_string_lossy();
        let Some(mut model) = Model::open(&name, &folder) else { continue };
        seen += 1;
        let texts: Vec<_> = texts::of(&folder).into_iter().map(|text| model.placed(text)).collect();
        for text in &texts {
            let found = model.run(&Layout::default().with(text));
            assert_close(&model.name, &scores(text, &found), &text.wanted);
        }
        let layout = texts.iter().rev().fold(Layout::default(), Layout::with);
        let wanted: Vec<f32> = texts.iter().rev().flat_map(|text| text.wanted.clone()).collect();
        let found = model.run(&layout);
        assert_close(&model.name, &scores(&texts[0], &found), &wanted);
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn graphs_for_gpus_are_valid_and_lack_nothing_but_the_processors_operators() {
    let mut seen = 0;
    for folder in texts::recorded() {
        // In half precision the library would first try to compute in 32 bits what the processor doesn't.
        let Some(opened) = model::open(&folder, Form::Packed(Element::Bfloat16)) else { continue };
        // Types and shapes are inferred, and operators looked up, before it is asked who runs them.
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("Could not find an implementation"), "{}: {error}", folder.display());
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_pass_that_is_refused_broken_or_cancelled_harms_no_later_one() {
    let folder = texts::folder().join("llama3");
    let mut model = Model::open("llama3", &folder).unwrap();
    let text = &texts::of(&folder)[1];
    let good = Layout::default().with(text);
    type Mistake = fn(&mut PackedPass);
    let mistakes: [(&str, Mistake); 4] = [
        ("block 48 is wanted", |pass| pass.sequences[0].blocks[0] = 48),
        ("output 1 of 1 is wanted", |pass| pass.reads[0].output = 1),
        ("300", |pass| pass.tokens[3] = 300),
        ("context", |pass| pass.sequences[0].past = 10_000),
    ];
    for (part, mistake) in mistakes {
        let mut pass = good.pass.clone();
        mistake(&mut pass);
        let error = model.try_run(&pass, &Cancellation::new()).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_close(part, &model.run(&good), &text.wanted);
    }
    let cancelled = Cancellation::new();
    cancelled.cancel();
    assert!(matches!(model.try_run(&good.pass, &cancelled), Err(RuntimeError::Cancelled)));
    assert_close("cancelled", &model.run(&good), &text.wanted);
}
