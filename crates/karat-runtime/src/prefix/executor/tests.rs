//! Sharing on real graphs: the tiny decoders of `tests/graphs`, against what Transformers makes of the same weights.

use std::{num::NonZeroUsize, ops::Range, path::Path as FilePath, thread};

use karat_rules::domain::{After, Cut, Reading, TokenizedInput};
use prometheus::{Registry, TextEncoder};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

use super::{
    super::{cache::PrefixCache, cost::RowCost, singles::Singles},
    *,
};
use crate::{
    Numbers, Padding, Provider, Purpose,
    ort::{Graph, GraphFile, Library, Sessions},
    readout::{Readout, ScoresAt},
    telemetry::PrefixMetrics,
};

mod side_by_side;

const SCORES: &str = "tiny_decoder_scores";
const LOGITS: &str = "tiny_decoder_lm";
/// How far a score may be from the reference's.
const CLOSE: f32 = 1e-4;

/// What was recorded.
#[derive(Deserialize)]
struct Golden {
    tiny_decoder_scores: Vec<ScoreCase>,
    tiny_decoder_lm: Vec<LanguageCase>,
}

#[derive(Deserialize)]
struct ScoreCase {
    ids: Vec<u32>,
    /// Of both heads, at every token.
    scores: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct LanguageCase {
    ids: Vec<u32>,
    next_token_log_probabilities: Vec<f32>,
    last_logits: Vec<f32>,
    last_hidden: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../../../tests/graphs/tiny_decoders.json")).unwrap()
}

fn open(graph: &str) -> Graph {
    let path = FilePath::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/graphs/{graph}.onnx"));
    let library = Library::load(None).expect("run `make setup` before the tests");
    library.open(&GraphFile { path: &path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap()
}

/// One model with its own cache and metrics.
struct Harness {
    graph: Graph,
    model: Arc<SharedModel>,
    registry: Registry,
}

impl Harness {
    fn new(graph: &str, outputs: &[&str], scores_at: ScoresAt, shares: bool, cache_bytes: u64) -> Self {
        let registry = Registry::new();
        let metrics = PrefixMetrics::register(&registry).unwrap();
        let model = SharedModel::new(
            Readout { outputs: outputs.iter().map(|&name| name.to_owned()).collect(), scores_at },
            shares,
            RowCost::assumed(),
            PrefixCache::new(cache_bytes, metrics.cache()),
            metrics.model(&"m".parse().unwrap()),
        );
        Self { graph: open(graph), model: Arc::new(model), registry }
    }

    fn scores(shares: bool, cache_bytes: u64) -> Self {
        Self::new(SCORES, &["scores"], ScoresAt::End { padding: None }, shares, cache_bytes)
    }

    /// The same with sessions of one thread.
    fn with_singles(self, count: usize) -> Self {
        let singles = (0..count).map(|_| self.decoder()).collect();
        let model = Arc::into_inner(self.model).unwrap().with_singles(Singles::new(singles));
        Self { model: Arc::new(model), ..self }
    }

    fn decoder(&self) -> Box<dyn DecoderExecutor> {
        self.graph.decoder_executor(&self.model.readout.outputs, NonZeroUsize::MIN, Purpose::Scoring).unwrap()
    }

    fn executor(&self) -> PrefixExecutor {
        PrefixExecutor::new(self.decoder(), Arc::clone(&self.model))
    }

    fn count(&self, name: &str) -> usize {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("karat_prefix_{name}_total{{model=\"m\"}} ")));
        line.unwrap().parse().unwrap()
    }
}

/// A sample whose response begins at `response`.
fn input(ids: &[u32], response: usize) -> Arc<TokenizedInput> {
    let response = response..ids.len();
    Arc::new(TokenizedInput::new(ids.to_vec(), vec![0; ids.len()], response, Cut::default()).unwrap())
}

fn reading(ids: &[u32], reading: Reading) -> Arc<TokenizedInput> {
    let input = TokenizedInput::new(ids.to_vec(), vec![0; ids.len()], 0..ids.len(), Cut::default()).unwrap();
    Arc::new(input.with_reading(reading).unwrap())
}

fn run(executor: &mut PrefixExecutor, inputs: &[Arc<TokenizedInput>]) -> Vec<Vec<RowTensor>> {
    executor.run(&TokenBatch::new(inputs.to_vec()).unwrap(), &Cancellation::new()).unwrap()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < CLOSE, "{found} is not {expected}");
    }
}

#[test]
fn scores_are_the_reference_implementations() {
    let cases = golden().tiny_decoder_scores;
    let inputs: Vec<_> = cases.iter().map(|case| input(&case.ids, 0)).collect();
    for shares in [true, false] {
        let mut executor = Harness::scores(shares, 1 << 20).executor();
        // The second time all but the last block comes from the cache.
        for _ in 0..2 {
            for (rows, case) in run(&mut executor, &inputs).iter().zip(&cases) {
                assert_eq!(rows[0].shape(), [2]);
                assert_close(rows[0].values(), case.scores.last().unwrap());
            }
        }
        let everywhere = Harness::new(SCORES, &["scores"], ScoresAt::Response, shares, 1 << 20);
        for (rows, case) in run(&mut everywhere.executor(), &inputs).iter().zip(&cases) {
            assert_eq!(rows[0].shape(), [case.ids.len(), 2]);
            assert_close(rows[0].values(), &case.scores.concat());
        }
    }
}

#[test]
fn steps_of_a_solution_are_read_in_one_pass() {
    let case = &golden().tiny_decoder_scores[4];
    let harness = Harness::new(SCORES, &["scores"], ScoresAt::Marks, true, 0);
    let marks = vec![3, 50, 149];
    let expected: Vec<f32> = marks.iter().flat_map(|mark| case.scores[*mark].clone()).collect();
    let marked = Arc::new(TokenizedInput::clone(&input(&case.ids, 1)).with_steps(marks).unwrap());
    let rows = run(&mut harness.executor(), &[input(&case.ids, 1), marked]);
    assert_eq!(rows[0][0].shape(), [0, 0], "no marks, nothing to read");
    assert_eq!(rows[1][0].shape(), [3, 2]);
    assert_close(rows[1][0].values(), &expected);
    assert_eq!(harness.count("computed_tokens"), 150);
}

#[test]
fn a_decoder_is_read_at_single_tokens() {
    let cases = golden().tiny_decoder_lm;
    let harness = Harness::new(LOGITS, &["logits", "hidden"], ScoresAt::End { padding: None }, true, 1 << 20);
    let mut executor = harness.executor();
    for case in &cases {
        let choices = [0, 17, 319];
        let mut inputs = vec![
            reading(&case.ids, Reading::Logits(After::End, choices.into())),
            reading(&case.ids, Reading::LastState),
        ];
        let range: Range<usize> = 1..case.ids.len();
        if !range.is_empty() {
            inputs.push(reading(&case.ids, Reading::LogProbabilities(range)));
        }
        let rows = run(&mut executor, &inputs);
        assert_close(rows[0][0].values(), &choices.map(|token| case.last_logits[token as usize]));
        assert_close(rows[1][0].values(), &case.last_hidden);
        if let Some(rows) = rows.get(2) {
            assert_close(rows[0].values(), &case.next_token_log_probabilities);
        }
    }
    let scores = Harness::scores(true, 0);
    let pairs = Harness::new(LOGITS, &["hidden", "logits"], ScoresAt::End { padding: None }, true, 0);
    let read = reading(&[1, 2], Reading::Logits(After::End, [7].into()));
    assert_eq!(run(&mut pairs.executor(), &[read]).len(), 1);
    // A column that the only output doesn't have.
    let beyond = TokenBatch::single(reading(&[1, 2], Reading::Logits(After::End, [7].into())));
    assert!(matches!(scores.executor().run(&beyond, &Cancellation::new()), Err(RuntimeError::Shape { .. })));
}

#[test]
fn logits_are_read_as_they_are() {
    let harness = Harness::new(LOGITS, &["logits"], ScoresAt::End { padding: None }, true, 0);
    for case in &golden().tiny_decoder_lm {
        let wanted = [case.last_logits[319], case.last_logits[0]];
        let end = reading(&case.ids, Reading::Logits(After::End, [319, 0].into()));
        let last = case.ids.len() - 1;
        let step = TokenizedInput::clone(&end).with_steps(vec![last]).unwrap();
        let step = Arc::new(step.with_reading(Reading::Logits(After::Steps, [319, 0].into())).unwrap());
        let rows = run(&mut harness.executor(), &[end, step]);
        assert_eq!((rows[0][0].shape(), rows[1][0].shape()), (&[2][..], &[1, 2][..]));
        rows.iter().for_each(|rows| assert_close(rows[0].values(), &wanted));
    }
}

#[test]
fn a_gate_is_read_at_its_own_token_also_of_a_prompt_that_is_known() {
    let case = &golden().tiny_decoder_lm[1];
    let harness = Harness::new(LOGITS, &["logits", "hidden"], ScoresAt::End { padding: None }, true, 1 << 20);
    let mut executor = harness.executor();
    let gated = |own: u32| {
        let ids = [case.ids.as_slice(), &[own; 40]].concat();
        Arc::new(TokenizedInput::clone(&input(&ids, case.ids.len() + 20)).with_gate(case.ids.len() - 1).unwrap())
    };
    for candidates in [[7, 8], [9, 10]] {
        let rows = run(&mut executor, &candidates.map(gated));
        for (rows, own) in rows.iter().zip(candidates) {
            assert_close(rows[1].values(), &case.last_hidden);
            let ungated = run(&mut executor, &[input(gated(own).ids(), 0)]);
            assert_close(rows[0].values(), ungated[0][0].values());
        }
    }
}

#[test]
fn the_score_stands_before_padding_at_the_end() {
    for (ids, last_other, before_first) in [
        (vec![5, 6, 2], 1, 1),
        (vec![5, 2, 6, 2, 2], 2, 0),
        (vec![2, 6, 2], 1, 2),
        (vec![2, 2], 0, 1),
        (vec![5, 6], 1, 1),
    ] {
        assert_eq!(Padding::LastOther(2).score_position(&ids), last_other, "{ids:?}");
        assert_eq!(Padding::BeforeFirst(2).score_position(&ids), before_first, "{ids:?}");
    }
    let case = &golden().tiny_decoder_scores[2];
    let harness = Harness::new(SCORES, &["scores"], ScoresAt::End { padding: Some(Padding::LastOther(9)) }, true, 0);
    let padded = [case.ids.as_slice(), &[9, 9]].concat();
    assert_close(run(&mut harness.executor(), &[input(&padded, 0)])[0][0].values(), &case.scores[6]);
}

#[test]
fn a_prompt_is_computed_once() {
    let harness = Harness::scores(true, 1 << 20);
    let mut executor = harness.executor();
    let prompt: Vec<u32> = (0..100).map(|at| 10 + at % 7).collect();
    let candidate = |own: u32| input(&[prompt.clone(), vec![200 + own; 10]].concat(), 100);
    run(&mut executor, &(0..8).map(candidate).collect::<Vec<_>>());
    assert_eq!((harness.count("tokens"), harness.count("computed_tokens")), (8 * 110, 100 + 8 * 10));
    assert_eq!(harness.count("cached_tokens"), 0);
    // Six whole blocks of the prompt were kept, and nothing of the candidates.
    run(&mut executor, &[candidate(50), candidate(51)]);
    assert_eq!(harness.count("computed_tokens"), 180 + 4 + 2 * 10);
    assert_eq!((harness.count("cached_tokens"), harness.count("hits")), (2 * 96, 2));
}

#[test]
fn workers_do_not_compute_the_same_prompt_side_by_side() {
    let harness = Harness::scores(true, 1 << 20);
    let prompt: Vec<u32> = (0..960).map(|at| 10 + at % 7).collect();
    let candidate = |own: u32| input(&[prompt.clone(), vec![200 + own; 10]].concat(), 960);
    thread::scope(|scope| {
        for worker in 0..4 {
            let mut executor = harness.executor();
            let candidate = &candidate;
            scope.spawn(move || run(&mut executor, &[candidate(2 * worker), candidate(2 * worker + 1)]));
        }
    });
    assert_eq!(harness.count("computed_tokens"), 960 + 8 * 10);
}

#[test]
fn a_worker_that_is_stopped_lets_others_compute() {
    let harness = Harness::scores(true, 1 << 20);
    let prompt: Vec<u32> = (0..1900).map(|at| 10 + at % 7).collect();
    let batch = TokenBatch::single(input(&prompt, 1800));
    let cancelled = Cancellation::new();
    thread::scope(|scope| {
        let stopped = scope.spawn(|| harness.executor().run(&batch, &cancelled));
        let finished = scope.spawn(|| harness.executor().run(&batch, &Cancellation::new()));
        cancelled.cancel();
        // It may have been done before it was stopped.
        assert!(matches!(stopped.join().unwrap(), Ok(_) | Err(RuntimeError::Cancelled)));
        assert!(finished.join().unwrap().is_ok());
    });
}

#[test]
fn a_text_beyond_the_context_is_an_error_and_the_next_is_not() {
    let harness = Harness::scores(true, 1 << 20);
    let mut executor = harness.executor();
    let long = TokenBatch::single(input(&vec![20; 2049], 0));
    assert!(matches!(executor.run(&long, &Cancellation::new()), Err(RuntimeError::Row { .. })));
    let case = &golden().tiny_decoder_scores[1];
    assert_close(run(&mut executor, &[input(&case.ids, 0)])[0][0].values(), &case.scores[1]);
}

/// A model that can't compute one token: whatever shares a row with it, and its keys and values, are no numbers.
struct Overflowing(Box<dyn DecoderExecutor>);

const OVERFLOW: u32 = 13;

impl DecoderExecutor for Overflowing {
    fn forward(&mut self, row: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError> {
        let mut output = self.0.forward(row, cancel)?;
        let tokens: Vec<u32> = row.spans.iter().flat_map(|span| span.tokens.clone()).collect();
        if tokens.contains(&OVERFLOW) {
            for read in &mut output.reads {
                *read = RowTensor::new(read.shape().to_vec(), vec![f32::NAN; read.values().len()]).unwrap();
            }
        }
        for (range, kept) in row.keep.iter().zip(&mut output.kept) {
            if tokens[range.clone()].contains(&OVERFLOW) {
                let numbers = vec![f32::NAN; self.shape().numbers_per_token() * range.len()];
                *kept = Arc::new(KeyValues::new(&self.shape(), range.len(), Numbers::Float32(numbers.into())).unwrap());
            }
        }
        Ok(output)
    }

    fn shape(&self) -> DecoderShape {
        self.0.shape()
    }
}

#[test]
fn what_is_no_number_stays_with_its_own_sample() {
    let harness = Harness::scores(true, 1 << 20);
    let decoder = Box::new(Overflowing(harness.decoder()));
    let mut executor = PrefixExecutor::new(decoder, Arc::clone(&harness.model));
    let prompt: Vec<u32> = (0..100).map(|at| 20 + at % 7).collect();
    let candidate = |own: &[u32]| input(&[&prompt, own].concat(), prompt.len());
    let good = candidate(&[30, 31]);
    let expected = run(&mut Harness::scores(false, 0).executor(), &[Arc::clone(&good)]);
    for bad in [candidate(&[30, OVERFLOW]), input(&[&[OVERFLOW; 40], prompt.as_slice()].concat(), 100)] {
        for inputs in [vec![Arc::clone(&good), Arc::clone(&bad)], vec![bad]] {
            let batch = TokenBatch::new(inputs).unwrap();
            assert!(matches!(executor.run(&batch, &Cancellation::new()), Err(RuntimeError::NotFinite)));
            assert_close(run(&mut executor, &[Arc::clone(&good)])[0][0].values(), expected[0][0].values());
        }
    }
    // Had the beginning that overflows been kept, this would be read next to it.
    assert_eq!(harness.model.cache.find(harness.model.root(), &[OVERFLOW; 40], 40).tokens, 0);
}

/// Candidates of a few prompts: some are empty, some go on where another ends, some come twice.
fn candidates() -> impl Strategy<Value = Vec<(Vec<u32>, usize)>> {
    let prompts = vec(vec(10..14_u32, 1..60), 1..4);
    let suffixes = vec((any::<prop::sample::Index>(), vec(10..13_u32, 0..40)), 1..12);
    (prompts, suffixes).prop_map(|(prompts, suffixes)| {
        let candidate = |(prompt, own): (prop::sample::Index, Vec<u32>)| {
            let prompt = prompt.get(&prompts);
            ([prompt.clone(), own].concat(), prompt.len())
        };
        suffixes.into_iter().map(candidate).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sharing_changes_no_score(
        batches in vec(candidates(), 1..4), cache_blocks in 0..12_u64, singles in prop::sample::select(vec![0, 2, 3]),
    ) {
        // From no room at all to a few blocks of 16 tokens, so that blocks come and go.
        let shared = Harness::scores(true, cache_blocks * 2600).with_singles(singles);
        let alone = Harness::scores(false, 0);
        let (mut shared, mut alone) = (shared.executor(), alone.executor());
        for batch in batches {
            let inputs: Vec<_> = batch.iter().map(|(ids, response)| input(ids, *response)).collect();
            let together: Vec<Vec<f32>> =
                run(&mut shared, &inputs).into_iter().map(|rows| rows[0].values().to_vec()).collect();
            let apart: Vec<Vec<f32>> =
                inputs.iter().map(|input| run(&mut alone, &[Arc::clone(input)])[0][0].values().to_vec()).collect();
            for (together, apart) in together.iter().zip(&apart) {
                for (together, apart) in together.iter().zip(apart) {
                    prop_assert!((together - apart).abs() < CLOSE, "{} is not {}", together, apart);
                }
            }
            let differs = |a: usize, b: usize| (apart[a][0] - apart[b][0]).abs() > CLOSE;
            for a in 0..inputs.len() {
                for b in (0..a).filter(|b| differs(a, *b)) {
                    prop_assert_eq!(apart[a][0] > apart[b][0], together[a][0] > together[b][0]);
                }
            }
        }
    }
}
