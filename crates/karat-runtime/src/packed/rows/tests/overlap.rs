//! Several who share a session: the next pass is made ready while one runs, nobody starves, and blocks are enough for all.

use std::thread;

use super::{super::super::simulated::Event, *};
use crate::packed::{NextTokens, PackedText, PackedTexts};

/// What a text of these tokens is scored.
fn score(ids: &[u32]) -> f32 {
    *scores(ids, &vec![0; ids.len()], true).last().unwrap()
}

/// Runs a batch and holds each sample against its own score.
fn check(rows: &mut PackedRows, inputs: &[Arc<TokenizedInput>]) {
    let found = rows.run(&TokenBatch::new(inputs.to_vec()).unwrap(), &Cancellation::new()).unwrap();
    for (input, found) in inputs.iter().zip(found) {
        assert_eq!(found[0].values(), [score(input.ids())]);
    }
}

/// Writes texts behind a prompt, a token at a time.
fn write(texts: &PackedTexts, prompt: &[u32], count: usize, steps: u32) {
    let text = texts.begin(prompt);
    let tokens = prompt[text.tokens()..].to_vec();
    let mut next = [NextTokens { text, tokens, read: true, texts: count }];
    texts.forward(&mut next, &Cancellation::new()).unwrap();
    let [NextTokens { text, .. }] = next;
    texts.keep(&text, prompt);
    let mut all: Vec<(PackedText, Vec<u32>)> = text.divide().into_iter().map(|text| (text, prompt.to_vec())).collect();
    for step in 0..steps {
        let next = |(number, (text, ids)): (u32, &mut (PackedText, Vec<u32>))| {
            ids.push(50_000 + step * 10 + number);
            NextTokens { text: std::mem::take(text), tokens: vec![ids[ids.len() - 1]], read: true, texts: 1 }
        };
        let mut next: Vec<NextTokens> = (0..).zip(&mut all).map(next).collect();
        let reads = texts.forward(&mut next, &Cancellation::new()).unwrap();
        for ((text, next), read) in all.iter_mut().zip(next).zip(reads) {
            assert_eq!(read.values(), [score(&text.1)]);
            text.0 = next.text;
        }
    }
}

#[test]
fn the_next_pass_is_made_ready_before_one_ends() {
    let Harness { control, mut rows, .. } = Harness::new(64, 8192);
    let mut beside = rows.beside();
    control.hold();
    let staged = thread::scope(|scope| {
        scope.spawn(|| check(&mut rows, &candidates(&prompt(1, 300), 0, &[10, 20])));
        control.wait_for(Event::Began(330));
        scope.spawn(|| check(&mut beside, &candidates(&prompt(2, 300), 0, &[10, 30])));
        let staged = control.wait_for(Event::Staged(340));
        control.release();
        staged
    });
    assert!(staged, "the second pass was not made ready while the first ran");
    let expected = [Event::Began(330), Event::Staged(340), Event::Ended(330), Event::Began(340), Event::Ended(340)];
    assert_eq!(control.events(), expected);
    assert_eq!(rows.session.blocks().room(), 64);
}

#[test]
fn a_pass_that_was_made_ready_learns_what_the_one_before_it_computed() {
    let Harness { control, mut rows, .. } = Harness::new(64, 8192);
    let mut beside = rows.beside();
    control.hold();
    thread::scope(|scope| {
        scope.spawn(|| check(&mut rows, &candidates(&prompt(1, 700), 0, &[10])));
        control.wait_for(Event::Began(710));
        scope.spawn(|| check(&mut beside, &candidates(&prompt(1, 700), 5, &[30, 40])));
        control.wait_for(Event::Staged(770));
        control.release();
    });
    let tokens: Vec<usize> = control.passes().iter().map(|pass| pass.tokens.len()).collect();
    assert_eq!(tokens, [710, 700 - 512 + 70], "two blocks of the prompt were known by then");
    assert_eq!(rows.session.blocks().room(), 64);
}

#[test]
fn blocks_of_a_pass_that_was_made_ready_go_to_whoever_has_the_turn() {
    // Room for the text that is written, and one sample.
    let Harness { control, mut rows, .. } = Harness::new(5, 600);
    let mut beside = rows.beside();
    let session = rows.session.clone();
    let texts = PackedTexts::new(session.clone(), 0);
    control.hold();
    let staged = thread::scope(|scope| {
        scope.spawn(|| check(&mut rows, &[input(&prompt(1, 300), 0)]));
        control.wait_for(Event::Began(300));
        scope.spawn(|| {
            let (text, tokens) = (PackedText::default(), prompt(2, 1024));
            let mut next = [NextTokens { text, tokens, read: true, texts: 1 }];
            let reads = texts.forward(&mut next, &Cancellation::new()).unwrap();
            assert_eq!(reads[0].values(), [score(&prompt(2, 1024))]);
        });
        while session.in_line() < 2 {
            thread::yield_now();
        }
        scope.spawn(|| check(&mut beside, &[input(&prompt(3, 250), 0), input(&prompt(4, 250), 0)]));
        let staged = control.wait_for(Event::Staged(500));
        control.release();
        staged
    });
    let tokens: Vec<usize> = control.passes().iter().map(|pass| pass.tokens.len()).collect();
    assert_eq!((staged, &tokens[..2]), (true, &[300, 1024][..]));
    assert_eq!(tokens[2..].iter().sum::<usize>(), 500, "together, or one by one while the text lives");
    assert_eq!(session.blocks().room(), 5);
}

#[test]
fn those_who_write_go_next_however_many_there_are_that_score() {
    let Harness { control, mut rows, .. } = Harness::new(64, 100);
    let (mut beside, session) = (rows.beside(), rows.session.clone());
    let texts = PackedTexts::new(session.clone(), 0);
    control.hold();
    thread::scope(|scope| {
        let strangers =
            |first: u32| (first..first + 3).map(|number| input(&prompt(number, 100), 0)).collect::<Vec<_>>();
        scope.spawn(move || check(&mut rows, &strangers(0)));
        control.wait_for(Event::Began(100));
        scope.spawn(move || check(&mut beside, &strangers(5)));
        while session.in_line() < 2 {
            thread::yield_now();
        }
        scope.spawn(|| {
            let mut text = PackedText::default();
            for step in 0..3 {
                let mut next = [NextTokens { text, tokens: vec![7; 3 + step], read: true, texts: 1 }];
                texts.forward(&mut next, &Cancellation::new()).unwrap();
                let [NextTokens { text: written, .. }] = next;
                text = written;
            }
        });
        while session.in_line() < 3 {
            thread::yield_now();
        }
        control.release();
    });
    let tokens: Vec<usize> = control.passes().iter().map(|pass| pass.tokens.len()).collect();
    assert_eq!(tokens[..2], [100, 3], "the one that writes came last and goes next");
    assert_eq!(tokens.iter().filter(|tokens| **tokens == 100).count(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn those_who_score_and_write_at_once_each_get_their_own(
        one in batches(), other in batches(), broken in vec(any::<bool>(), 7), rows in 100..3000_usize,
        prompts in vec(1..600_usize, 1..4),
    ) {
        // The longest sample takes 7 blocks, and texts that are written 2 · 3 + 2.
        let Harness { control, rows: mut first, .. } = Harness::new(15, rows);
        let mut second = first.beside();
        let (session, texts) = (first.session.clone(), PackedTexts::new(first.session.clone(), 0));
        let samples = |batch: &[Sample]| -> Vec<_> {
            batch.iter().map(|(ids, response, _)| input(ids, *response)).collect()
        };
        thread::scope(|scope| {
            scope.spawn(|| one.iter().for_each(|batch| check(&mut first, &samples(batch))));
            scope.spawn(|| {
                for (batch, broken) in other.iter().zip(&broken) {
                    if *broken {
                        let cancelled = Cancellation::new();
                        cancelled.cancel();
                        let batch = TokenBatch::new(samples(batch)).unwrap();
                        assert!(matches!(second.run(&batch, &cancelled), Err(RuntimeError::Cancelled)));
                    }
                    check(&mut second, &samples(batch));
                }
            });
            scope.spawn(|| {
                for (number, length) in (0..).zip(&prompts) {
                    write(&texts, &prompt(20 + number / 2, *length), 2, 5);
                }
            });
        });
        prop_assert_eq!(session.blocks().room(), 15, "no block leaks");
        prop_assert!(!control.passes().is_empty());
    }
}
