//! The generator on a model whose every logit can be computed from the text alone: what goes wrong with places, masks or
//! positions shows as another text.

use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex},
};

use karat_rules::domain::{ElementType, RowTensor};
use karat_runtime::{
    Cancellation, DecoderExecutor, DecoderRow, DecoderRowOutput, DecoderShape, KeyValues, Numbers, Readout,
    RuntimeError, ScoresAt,
    prefix::{PrefixCache, RowCost, SharedModel},
    telemetry::{PrefixMetrics, SharingMetrics},
};
use prometheus::Registry;
use proptest::prelude::*;

use super::{sampling::Sampler, *};
use crate::{
    telemetry::{ModelMetrics, testing::Recorded},
    workers::{Roster, Stage},
};

const VOCABULARY: u32 = 23;
/// Ends a text.
const END: u32 = 0;
/// A row that holds it fails.
const POISON: u32 = 20;
/// Its keys and values are no numbers.
const NAN: u32 = 21;
/// A row that holds it panics.
const BOMB: u32 = 22;
const CONTEXT: usize = 400;

const SHAPE: DecoderShape =
    DecoderShape { layers: 1, kv_heads: 1, head_dim: 1, context: CONTEXT, element: ElementType::Float32 };

/// The logits after a text, given as tokens with their positions, in whatever order.
fn logits(text: impl Iterator<Item = (u32, usize)>) -> Vec<f32> {
    let hash = text.fold(7_usize, |hash, (token, position)| {
        let token = token as usize + 1;
        (hash + token * token * (position + 3) * 31) % 1_000_003
    });
    // What ends, fails or explodes is never the likeliest, but can be drawn.
    let logit = |id: usize| if (1..20).contains(&id) { ((hash * (id + 5)) % 97) as f32 / 20.0 } else { -3.0 };
    (0..VOCABULARY as usize).map(logit).collect()
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    rows: Mutex<Vec<usize>>,
    /// How many tokens were computed.
    tokens: Mutex<usize>,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    /// Whether a row is held.
    held: bool,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    /// Returns once a row is held at the closed gate.
    fn wait_for_held(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| !state.held).unwrap());
    }

    fn pass(&self, cancel: &Cancellation) {
        let mut state = self.state.lock().unwrap();
        state.held = true;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.closed && !cancel.is_cancelled()).unwrap();
        state.held = false;
    }
}

struct Model(Arc<Gate>);

impl DecoderExecutor for Model {
    fn forward(&mut self, row: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError> {
        row.check(&SHAPE)?;
        self.0.pass(cancel);
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        let new: Vec<(u32, usize)> = row
            .spans
            .iter()
            .flat_map(|span| span.tokens.iter().enumerate().map(|(index, token)| (*token, span.position + index)))
            .collect();
        self.0.rows.lock().unwrap().push(row.spans.len());
        *self.0.tokens.lock().unwrap() += new.len();
        let holds = |id| new.iter().any(|(token, _)| *token == id);
        assert!(!holds(BOMB), "told to panic");
        if holds(POISON) {
            return Err(RuntimeError::Pass { cause: "told to fail".into() });
        }
        // Keys are token ids, values their positions.
        let past: Vec<(u32, usize)> = row
            .past
            .iter()
            .flat_map(|past| {
                let Numbers::Float32(numbers) = past.values.numbers() else { panic!("another format") };
                let tokens = past.values.tokens();
                past.range.clone().map(move |token| (numbers[token] as u32, numbers[tokens + token] as usize))
            })
            .collect();
        let mut reads = Vec::new();
        for read in &row.reads {
            let mut first = 0;
            let span = row
                .spans
                .iter()
                .find(|span| {
                    let inside = read.at < first + span.tokens.len();
                    if !inside {
                        first += span.tokens.len();
                    }
                    inside
                })
                .unwrap();
            let seen = span.sees_past.iter().cloned().flatten().map(|place| past[place]);
            let own = new[first..=read.at].iter().copied();
            reads.push(RowTensor::new(vec![VOCABULARY as usize], logits(seen.chain(own))).unwrap());
        }
        let kept = row.keep.iter().map(|range| {
            let tokens = &new[range.clone()];
            let key = |(token, _): &(u32, usize)| if *token == NAN { f32::NAN } else { *token as f32 };
            let numbers = tokens.iter().map(key).chain(tokens.iter().map(|(_, position)| *position as f32));
            Arc::new(KeyValues::new(&SHAPE, tokens.len(), Numbers::Float32(numbers.collect())).unwrap())
        });
        Ok(DecoderRowOutput { reads, kept: kept.collect() })
    }

    fn shape(&self) -> DecoderShape {
        SHAPE
    }
}

/// What the model writes, computed without a generator.
fn expected(prompt: &[u32], sampling: Sampling, max_tokens: usize) -> (Vec<u32>, Finish) {
    let mut text = prompt.to_vec();
    let mut sampler = Sampler::new(sampling);
    while text.len() < prompt.len() + max_tokens {
        let positioned = text.iter().copied().zip(0..);
        let token = sampler.pick(&logits(positioned)).unwrap().token;
        if token == END {
            return (text.split_off(prompt.len()), Finish::End);
        }
        text.push(token);
    }
    (text.split_off(prompt.len()), Finish::Length)
}

struct Rig {
    generator: Generator,
    roster: Roster,
    gate: Arc<Gate>,
    metrics: Recorded,
}

impl Rig {
    fn new(limits: GenerationLimits) -> Self {
        Self::start(|executor, metrics| Generator::start(executor, limits, metrics))
    }

    /// One for a model that scores as well.
    fn knowing(limits: GenerationLimits) -> Self {
        Self::start(|executor, metrics| Generator::start_knowing(executor, known(), limits, metrics))
    }

    fn start(start: impl FnOnce(Box<dyn DecoderExecutor>, ModelMetrics) -> io::Result<Generator>) -> Self {
        let gate = Arc::new(Gate::default());
        let metrics = Recorded::new();
        let generator = start(Box::new(Model(Arc::clone(&gate))), metrics.model.clone()).unwrap();
        let roster = Roster::default();
        generator.enlist(&roster, Stage::Serving);
        Self { generator, roster, gate, metrics }
    }

    fn has(&self, line: &str) -> bool {
        self.metrics.has(line)
    }
}

/// What a model that scores remembers: nothing yet.
fn known() -> Arc<SharedModel> {
    let cache = PrefixCache::new(1 << 20, PrefixMetrics::register(&Registry::new()).unwrap().cache());
    let readout = Readout { outputs: Vec::new(), scores_at: ScoresAt::End { padding: None } };
    Arc::new(SharedModel::new(readout, true, RowCost::assumed(), cache, SharingMetrics::unread().unwrap()))
}

fn order(prompt: &[u32], texts: &[Sampling], max_tokens: usize) -> Order {
    Order {
        prompt: prompt.into(),
        texts: texts.to_vec(),
        max_tokens: NonZeroUsize::new(max_tokens).unwrap(),
        ends: [END].into(),
    }
}

fn read(mut stream: Stream) -> Result<(Vec<u32>, Finish), GenerateError> {
    futures_executor::block_on(async {
        let mut tokens = Vec::new();
        loop {
            match stream.next().await.expect("a text ends with a finish or an error")? {
                Event::Token(picked) => tokens.push(picked.token),
                Event::End(finish) => return Ok((tokens, finish)),
            }
        }
    })
}

fn warm(seed: u64) -> Sampling {
    Sampling::new(1.0, 0.95, seed).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However many are written at once, however small the rows and the memory.
    #[test]
    fn every_text_is_what_it_would_be_alone(
        orders in prop::collection::vec((prop::collection::vec(1..20_u32, 1..60), 1..4_usize, 1..40_usize, any::<u64>()), 1..8),
        texts in 3..9_usize,
        row in 1..40_usize,
        remembers in any::<bool>(),
    ) {
        let limits = GenerationLimits { texts, tokens: 256, waiting: 64, row, block: 16 };
        let rig = if remembers { Rig::knowing(limits) } else { Rig::new(limits) };
        let samplings = |count: usize, seed: u64| -> Vec<Sampling> {
            (0..count as u64).map(|index| if index == 0 { Sampling::GREEDY } else { warm(seed).nth(index) }).collect()
        };
        let streams: Vec<Vec<Stream>> = orders
            .iter()
            .map(|(prompt, count, most, seed)| rig.generator.submit(order(prompt, &samplings(*count, *seed), *most)).unwrap())
            .collect();
        for ((prompt, count, most, seed), streams) in orders.iter().zip(streams) {
            for (sampling, stream) in samplings(*count, *seed).into_iter().zip(streams) {
                let written = expected(prompt, sampling, *most);
                // What the model itself may draw can make a row fail; such a text has no counterpart.
                if written.0.iter().all(|token| *token < POISON) {
                    prop_assert_eq!(read(stream).unwrap(), written);
                }
            }
        }
        rig.roster.drain();
        let idle = rig.has("karat_generating_texts{model=\"m\"} 0");
        prop_assert!(idle);
    }
}

#[test]
fn texts_are_written_side_by_side_and_a_shared_prompt_is_read_once() {
    let rig = Rig::new(GenerationLimits::default());
    rig.gate.set(true);
    let prompt: Vec<u32> = (1..15).collect();
    let streams = rig.generator.submit(order(&prompt, &[Sampling::GREEDY; 3], 5)).unwrap();
    let other = rig.generator.submit(order(&[9], &[Sampling::GREEDY], 5)).unwrap();
    rig.gate.set(false);
    for stream in streams {
        assert_eq!(read(stream).unwrap(), expected(&prompt, Sampling::GREEDY, 5));
    }
    assert_eq!(read(other.into_iter().next().unwrap()).unwrap(), expected(&[9], Sampling::GREEDY, 5));
    rig.roster.drain();
    // The first order may have begun alone; then all four texts share their rows.
    let rows = rig.gate.rows.lock().unwrap().clone();
    assert!(rows.len() <= 7 && rows.contains(&4), "{rows:?}");
    assert!(rig.has("karat_generated_tokens_total{model=\"m\"} 20"), "{}", rig.metrics.text());
}

#[test]
fn a_prompt_begins_with_what_is_known_of_it_and_is_known_afterwards() {
    let rig = Rig::knowing(GenerationLimits::default());
    let prompt: Vec<u32> = (0..37).map(|at| at % 19 + 1).collect();
    let other = [&prompt[..20], &[3; 12]].concat();
    // Two whole blocks of 16 are kept, of another prompt the one that it has in common; a text's last token is drawn, not
    // computed. What ends with a block is known up to it, and still computed from its last token's block on.
    for (prompt, computed) in [(&*prompt, 37), (&*prompt, 5), (&*other, 16), (&*other, 16), (&prompt[..33], 1)] {
        let before = *rig.gate.tokens.lock().unwrap();
        let streams = rig.generator.submit(order(prompt, &[Sampling::GREEDY; 2], 6)).unwrap();
        let expected = expected(prompt, Sampling::GREEDY, 6);
        for stream in streams {
            assert_eq!(read(stream).unwrap(), expected);
        }
        let written = 2 * (expected.0.len() - usize::from(expected.1 == Finish::Length));
        assert_eq!(*rig.gate.tokens.lock().unwrap() - before, computed + written, "{} tokens", prompt.len());
    }
}

#[test]
fn one_that_fails_takes_nobody_with_it() {
    for bad in [POISON, NAN, BOMB] {
        let rig = Rig::new(GenerationLimits::default());
        rig.gate.set(true);
        let fine = |first| order(&[first, 5], &[Sampling::GREEDY], 30);
        let before = rig.generator.submit(fine(3)).unwrap();
        let broken = rig.generator.submit(order(&[4, bad, 6], &[Sampling::GREEDY; 2], 30)).unwrap();
        let after = rig.generator.submit(fine(8)).unwrap();
        rig.gate.set(false);
        for stream in broken {
            let error = read(stream).unwrap_err();
            let told = match bad {
                POISON => matches!(error, GenerateError::Runtime(_)),
                NAN => matches!(error, GenerateError::NotFinite),
                _ => matches!(error, GenerateError::Panicked),
            };
            assert!(told, "{bad}: {error}");
        }
        for (first, streams) in [(3, before), (8, after)] {
            for stream in streams {
                assert_eq!(read(stream).unwrap(), expected(&[first, 5], Sampling::GREEDY, 30));
            }
        }
    }
}

#[test]
fn a_client_that_leaves_makes_room() {
    let rig = Rig::new(GenerationLimits { texts: 1, ..GenerationLimits::default() });
    rig.gate.set(true);
    let running = rig.generator.submit(order(&[1], &[Sampling::GREEDY], 300)).unwrap();
    rig.gate.wait_for_held();
    let abandoned = rig.generator.submit(order(&[2], &[Sampling::GREEDY], 300)).unwrap();
    let next = rig.generator.submit(order(&[3], &[Sampling::GREEDY], 4)).unwrap();
    drop((running, abandoned));
    rig.gate.set(false);
    for stream in next {
        assert_eq!(read(stream).unwrap(), expected(&[3], Sampling::GREEDY, 4));
    }
    rig.roster.drain();
    assert!(rig.has("karat_generations_cancelled_total{model=\"m\"} 1"), "{}", rig.metrics.text());
}

#[test]
fn a_text_whose_reader_has_enough_is_not_given_up() {
    let rig = Rig::new(GenerationLimits { texts: 1, ..GenerationLimits::default() });
    rig.gate.set(true);
    let mut running = rig.generator.submit(order(&[1], &[Sampling::GREEDY], 300)).unwrap();
    rig.gate.wait_for_held();
    running[0].end();
    rig.gate.set(false);
    rig.roster.drain();
    assert!(rig.has("karat_generations_cancelled_total{model=\"m\"} 0"), "{}", rig.metrics.text());
}

#[test]
fn what_does_not_fit_is_refused_and_what_waits_is_bounded() {
    let rig = Rig::new(GenerationLimits { texts: 2, tokens: 64, waiting: 1, row: 16, block: 16 });
    let greedy = |texts| vec![Sampling::GREEDY; texts];
    let refused = |prompt: &[u32], texts, most| rig.generator.submit(order(prompt, &greedy(texts), most)).unwrap_err();
    assert_eq!(refused(&[1; 40], 1, 30), GenerationRefusal::TooLarge { tokens: 70, most: 64 });
    assert_eq!(refused(&[1], 3, 1), GenerationRefusal::TooMany { texts: 3, most: 2 });
    assert_eq!(refused(&[], 1, 1), GenerationRefusal::Empty);
    assert_eq!(refused(&[1], 0, 1), GenerationRefusal::Empty);

    rig.gate.set(true);
    let running = rig.generator.submit(order(&[1], &greedy(1), 30)).unwrap();
    rig.gate.wait_for_held();
    let waiting = rig.generator.submit(order(&[2], &greedy(1), 30)).unwrap();
    assert_eq!(refused(&[3], 1, 30), GenerationRefusal::Full(1));
    // One that is abandoned waits no more.
    drop(waiting);
    let next = rig.generator.submit(order(&[4], &greedy(1), 30)).unwrap();
    rig.gate.set(false);
    for (first, stream) in [1, 4].into_iter().zip(running.into_iter().chain(next)) {
        assert_eq!(read(stream).unwrap(), expected(&[first], Sampling::GREEDY, 30));
    }
    rig.roster.drain();
    assert_eq!(rig.generator.submit(order(&[1], &greedy(1), 1)).unwrap_err(), GenerationRefusal::Stopped);
}

#[test]
fn dropping_the_generator_breaks_off_what_is_being_written() {
    let rig = Rig::new(GenerationLimits { texts: 1, ..GenerationLimits::default() });
    rig.gate.set(true);
    let running = rig.generator.submit(order(&[1], &[Sampling::GREEDY], 300)).unwrap().remove(0);
    let waiting = rig.generator.submit(order(&[1], &[Sampling::GREEDY], 300)).unwrap().remove(0);
    let gate = Arc::clone(&rig.gate);
    let wake = std::thread::spawn(move || {
        // The fake looks at the cancellation when it is woken.
        while Arc::strong_count(&gate) > 1 {
            gate.changed.notify_all();
            std::thread::yield_now();
        }
    });
    let Rig { generator, gate, .. } = rig;
    drop(gate);
    drop(generator);
    wake.join().unwrap();
    for mut stream in [running, waiting] {
        let last = futures_executor::block_on(stream.next());
        assert!(matches!(last, None | Some(Err(GenerateError::Stopped))), "{last:?}");
    }
}
