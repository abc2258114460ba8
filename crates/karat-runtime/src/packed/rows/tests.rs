//! Batches on a simulated session: every sample gets its own score, whatever it shares and whatever happens.

mod overlap;

use std::panic::{AssertUnwindSafe, catch_unwind};

use karat_rules::domain::{After, Cut, ModelName, Reading, TokenizedInput};
use prometheus::{Registry, TextEncoder};
use proptest::{collection::vec, prelude::*};

use super::{
    super::simulated::{Control, Simulated, scores},
    *,
};
use crate::{
    ScoresAt,
    telemetry::{PackedMetrics, PrefixMetrics},
};

/// A session with its control and figures.
struct Harness {
    control: Control,
    rows: PackedRows,
    registry: Registry,
    scores_at: ScoresAt,
}

impl Harness {
    fn new(blocks: usize, rows: usize) -> Self {
        Self::with(PackedShape { blocks, block_bytes: 1, context: 2048, causal: true }, rows, END)
    }

    fn with(shape: PackedShape, rows: usize, scores_at: ScoresAt) -> Self {
        let control = Control::default();
        let registry = Registry::new();
        let metrics = PrefixMetrics::register(&registry).unwrap().model(&"m".parse::<ModelName>().unwrap());
        let readout = Readout { outputs: vec!["scores".to_owned()], scores_at };
        let executor = Box::new(Simulated::new(shape, control.clone()));
        let session = PackedSession::new(executor, PackedMetrics::unread().unwrap());
        let rows = PackedRows::new(session, Arc::new(readout), rows, metrics);
        Self { control, rows, registry, scores_at }
    }

    fn run(&mut self, inputs: &[Arc<TokenizedInput>]) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        self.rows.run(&TokenBatch::new(inputs.to_vec()).unwrap(), &Cancellation::new())
    }

    /// Runs a batch, and holds each sample against what the model makes of it alone.
    fn check(&mut self, inputs: &[Arc<TokenizedInput>]) {
        let found = self.run(inputs).unwrap();
        for (input, rows) in inputs.iter().zip(found) {
            let all = scores(input.ids(), input.type_ids(), self.rows.shape.causal);
            let expected: Vec<f32> = match self.scores_at {
                ScoresAt::End { .. } => vec![all[input.len() - 1]],
                ScoresAt::Start => vec![all[0]],
                ScoresAt::Marks => input.steps().iter().map(|mark| all[*mark]).collect(),
                ScoresAt::Response => all[input.response()].to_vec(),
            };
            assert_eq!(rows[0].values(), expected);
        }
        assert_eq!(self.rows.session.blocks().room(), self.rows.shape.blocks, "nothing is leased between batches");
    }

    fn count(&self, name: &str) -> usize {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("karat_prefix_{name}_total{{model=\"m\"}} ")));
        line.unwrap().parse().unwrap()
    }

    /// How many rows and tokens each pass had.
    fn passes(&self) -> Vec<(usize, usize)> {
        self.control.passes().iter().map(|pass| (pass.expand.len(), pass.tokens.len())).collect()
    }
}

const END: ScoresAt = ScoresAt::End { padding: None };

/// A sample whose response begins at `response`.
fn input(ids: &[u32], response: usize) -> Arc<TokenizedInput> {
    Arc::new(TokenizedInput::new(ids.to_vec(), vec![0; ids.len()], response..ids.len(), Cut::default()).unwrap())
}

/// A prompt's tokens.
fn prompt(number: u32, length: usize) -> Vec<u32> {
    (0..length).map(|at| number * 1000 + u32::try_from(at % 7).unwrap()).collect()
}

/// Candidates of one prompt, of these lengths.
fn candidates(prompt: &[u32], first: u32, lengths: &[usize]) -> Vec<Arc<TokenizedInput>> {
    let candidate = |(number, length): (u32, &usize)| {
        input(&[prompt, &vec![100_000 + first + number; *length]].concat(), prompt.len())
    };
    (0..).zip(lengths).map(candidate).collect()
}

#[test]
fn a_prompt_of_any_length_is_computed_once() {
    for length in [1, 7, 255, 256, 257, 300, 700] {
        let own = [1, 2, 40, 128, 255, 256, 300];
        let mut harness = Harness::new(64, 8192);
        harness.check(&candidates(&prompt(1, length), 0, &own));
        let sum: usize = own.iter().sum();
        let repeated = (own.len() - 1) * (length % BLOCK_TOKENS);
        assert_eq!(harness.passes(), [(length + sum + repeated, length + sum)], "a prompt of {length}");
        assert_eq!(harness.count("tokens"), own.len() * length + sum);
        assert_eq!((harness.count("computed_tokens"), harness.count("cached_tokens")), (length + sum, 0));

        let longest = [&prompt(1, length)[..], &[100_005; 300]].concat();
        let kept = harness.rows.session.blocks().find(&longest).blocks().len();
        assert_eq!(kept, length / BLOCK_TOKENS, "nothing of the responses is kept");
        // Of the next candidates' prompt the whole blocks are known; the tail is computed once more.
        harness.check(&candidates(&prompt(1, length), 50, &[3, 9]));
        assert_eq!(harness.passes()[1].1, length % BLOCK_TOKENS + 12);
        assert_eq!(harness.count("cached_tokens"), 2 * (length / BLOCK_TOKENS * BLOCK_TOKENS));
        assert_eq!(harness.count("hits"), if length >= BLOCK_TOKENS { 2 } else { 0 });
    }
}

#[test]
fn prompts_behind_one_system_prompt_share_it_and_each_is_shared() {
    let system = prompt(9, 400);
    let prompts = [[&system[..], &prompt(1, 300)].concat(), [&system[..], &prompt(2, 5)].concat(), system.clone()];
    let inputs: Vec<_> = prompts.iter().flat_map(|prompt| candidates(prompt, 0, &[10, 20, 30])).collect();
    let mut harness = Harness::new(64, 8192);
    harness.check(&inputs);
    assert_eq!(harness.passes().len(), 1);
    assert_eq!(harness.passes()[0].1, 400 + 300 + 5 + 3 * 60);
    // The same sample twice, and one that another goes on from, cost nothing.
    let (long, short) = (input(&prompt(3, 600), 500), input(&prompt(3, 550), 500));
    harness.check(&[Arc::clone(&short), Arc::clone(&long), short, long]);
    assert_eq!(harness.passes()[1], (600, 600));
}

#[test]
fn strangers_are_packed_up_to_the_budget_and_a_long_sample_goes_alone() {
    let mut harness = Harness::new(64, 500);
    let strangers: Vec<_> = (0..6).map(|number| input(&prompt(number, 150), 0)).collect();
    harness.check(&strangers);
    assert_eq!(harness.passes(), [(450, 450), (450, 450)]);
    let mixed = [Arc::clone(&strangers[0]), input(&prompt(7, 1500), 0), Arc::clone(&strangers[1])];
    harness.check(&mixed);
    assert_eq!(harness.passes()[2..], [(300, 300), (1500, 1500)]);
    // Repeated rows count.
    let mut harness = Harness::new(64, 500);
    harness.check(&candidates(&prompt(1, 200), 0, &[20, 20, 20]));
    assert_eq!(harness.passes(), [(440, 240), (220, 220)]);
}

#[test]
fn marks_and_responses_are_read_inside_what_is_known() {
    let shape = PackedShape { blocks: 64, block_bytes: 1, context: 2048, causal: true };
    let marked = |marks: &[usize]| {
        let input = TokenizedInput::clone(&input(&prompt(1, 900), 800));
        Arc::new(input.with_steps(marks.to_vec()).unwrap())
    };
    let mut harness = Harness::with(shape, 8192, ScoresAt::Marks);
    harness.check(&[marked(&[850, 899])]);
    assert_eq!(harness.passes()[0].1, 900);
    // Three blocks are known; a mark in the second has it computed again, and one that isn't there reads nothing.
    harness.check(&[marked(&[850, 899])]);
    harness.check(&[marked(&[300, 850]), marked(&[])]);
    harness.check(&[marked(&[850]), marked(&[3, 600]), marked(&[700])]);
    assert_eq!(harness.passes().iter().map(|pass| pass.1).collect::<Vec<_>>()[1..3], [900 - 768, 851 - 256]);

    let mut harness = Harness::with(shape, 8192, ScoresAt::Response);
    harness.check(&candidates(&prompt(1, 700), 0, &[1, 300, 40]));
    harness.check(&[input(&prompt(1, 700), 100), input(&prompt(1, 650), 600), input(&prompt(1, 700), 690)]);
}

#[test]
fn columns_of_an_output_are_read_where_the_sample_says() {
    let mut harness = Harness::new(8, 8192);
    let ids = prompt(1, 300);
    let asked = |reading| Arc::new(TokenizedInput::clone(&input(&ids, 0)).with_reading(reading).unwrap());
    harness.run(&[asked(Reading::Logits(After::End, [7].into())), asked(Reading::LogProbabilities(260..300))]).unwrap();
    let passes = harness.control.passes();
    let read: Vec<usize> = passes[0].reads.iter().map(|read| read.at).collect();
    assert_eq!(read.len(), 41);
    assert_eq!(read.iter().filter(|at| **at == 299).count(), 1);
}

#[test]
fn what_is_kept_gives_way_to_what_comes() {
    // Room for one text of four blocks and a little more.
    let mut harness = Harness::new(5, 8192);
    for round in 0..3 {
        for number in 0..4 {
            harness.check(&candidates(&prompt(number, 700), round, &[30, 200]));
        }
    }
    // Batches that take more blocks than there are, all at once.
    let all: Vec<_> = (0..6).flat_map(|number| candidates(&prompt(number, 520), 9, &[30, 300])).collect();
    harness.check(&all);
    let too_long = harness.run(&[input(&prompt(1, 1281), 0)]).unwrap_err().to_string();
    assert!(too_long.contains("6 blocks of 256 tokens, and the session has 5"), "{too_long}");
    harness.check(&[input(&prompt(1, 1280), 0)]);
}

#[test]
fn a_pass_that_breaks_off_leaves_nothing_behind() {
    let mut harness = Harness::new(16, 8192);
    harness.check(&candidates(&prompt(1, 600), 0, &[10]));
    let batch = [candidates(&prompt(1, 600), 5, &[10, 20]), candidates(&prompt(2, 600), 5, &[10, 20])].concat();

    harness.control.cancel_next();
    assert!(matches!(harness.run(&batch), Err(RuntimeError::Cancelled)));
    assert_eq!(harness.rows.session.blocks().room(), 16);
    assert!(harness.rows.session.blocks().find(&prompt(2, 600)).blocks().is_empty(), "half of it was written");
    assert_eq!(harness.rows.session.blocks().find(&prompt(1, 600)).blocks().len(), 2, "what was known is as it was");

    harness.control.panic_next();
    assert!(catch_unwind(AssertUnwindSafe(|| harness.run(&batch))).is_err());
    assert_eq!(harness.rows.session.blocks().room(), 16);
    harness.check(&batch);

    let cancelled = Cancellation::new();
    cancelled.cancel();
    let batch = TokenBatch::new(batch).unwrap();
    let passes = harness.passes().len();
    assert!(matches!(harness.rows.run(&batch, &cancelled), Err(RuntimeError::Cancelled)));
    assert_eq!(harness.passes().len(), passes, "nothing is begun for nobody");
}

#[test]
fn passes_that_run_out_of_memory_become_smaller() {
    let mut harness = Harness::new(64, 4000);
    harness.control.limit_memory(Some(1000));
    let inputs: Vec<_> = (0..20).map(|number| input(&prompt(number, 200), 0)).collect();
    harness.check(&inputs);
    assert_eq!(harness.passes()[..4], [(4000, 4000), (2000, 2000), (1000, 1000), (1000, 1000)]);
    assert_eq!([harness.rows.take_retries(), harness.rows.take_retries()], [2, 0], "each is told once");
    harness.check(&inputs);
    assert!(harness.passes()[6..].iter().all(|(rows, _)| *rows <= 1000), "it was learned");
    let long = harness.run(&[input(&prompt(1, 1500), 0)]);
    assert!(matches!(long, Err(RuntimeError::OutOfMemory { .. })), "nothing smaller is left to try");
    assert_eq!(harness.rows.take_retries(), 0, "and so it wasn't tried again");
    harness.check(&inputs[..2]);
}

#[test]
fn what_is_no_number_stays_with_its_own_sample() {
    let mut harness = Harness::new(64, 8192);
    harness.control.overflow_on(13);
    let good = candidates(&prompt(1, 600), 0, &[10, 20]);
    let bad = input(&[&prompt(1, 600)[..], &[13, 5]].concat(), 600);
    let rotten = input(&[&[13], &prompt(1, 600)[..]].concat(), 590);
    for batch in [[good.clone(), vec![bad]].concat(), vec![rotten]] {
        assert!(matches!(harness.run(&batch), Err(RuntimeError::NotFinite)));
        assert!(
            harness.rows.session.blocks().find(batch[0].ids()).blocks().is_empty(),
            "nothing of such a pass is kept"
        );
        harness.check(&good);
    }
}

#[test]
fn samples_of_a_model_that_looks_both_ways_stand_whole() {
    let shape = PackedShape { blocks: 16, block_bytes: 1, context: 512, causal: false };
    let mut harness = Harness::with(shape, 1000, ScoresAt::Start);
    let pair = |ids: &[u32], second: usize| {
        let segments = (0..ids.len()).map(|at| u32::from(at >= second)).collect();
        Arc::new(TokenizedInput::new(ids.to_vec(), segments, 0..ids.len(), Cut::default()).unwrap())
    };
    let inputs =
        [input(&prompt(1, 300), 0), input(&prompt(1, 301), 0), pair(&prompt(1, 300), 100), pair(&prompt(1, 300), 9)];
    harness.check(&inputs);
    harness.check(&inputs[..2]);
    assert_eq!(harness.passes(), [(901, 901), (300, 300), (601, 601)]);
    assert!(harness.control.passes()[2].segments.is_empty(), "all in the first");
    assert_eq!((harness.count("computed_tokens"), harness.count("tokens")), (1802, 1802));
}

/// A sample: its tokens, where its response begins, and its marks.
type Sample = (Vec<u32>, usize, Vec<usize>);

/// What is sent: prompts that go on from each other or not, and candidates of them, read somewhere.
fn batches() -> impl Strategy<Value = Vec<Vec<Sample>>> {
    let length = prop_oneof![1..20_usize, 250..262_usize, 500..530_usize];
    let part = (0..3_u32, length).prop_map(|(letter, length)| vec![letter; length]);
    let sample = (vec(part, 1..4), any::<prop::sample::Index>(), vec(any::<prop::sample::Index>(), 0..4));
    let sample = sample.prop_map(|(parts, response, marks)| {
        let ids = parts.concat();
        let mut marks: Vec<usize> = marks.iter().map(|mark| mark.index(ids.len())).collect();
        marks.sort_unstable();
        marks.dedup();
        (ids.clone(), response.index(ids.len()), marks)
    });
    vec(vec(sample, 1..9), 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_sample_gets_its_own_scores(
        batches in batches(),
        blocks in 8..24_usize,
        rows in 100..3000_usize,
        at in 0..3_usize,
        broken in vec(any::<bool>(), 7),
    ) {
        let scores_at = [END, ScoresAt::Marks, ScoresAt::Response][at];
        let shape = PackedShape { blocks, block_bytes: 1, context: 2048, causal: true };
        let mut harness = Harness::with(shape, rows, scores_at);
        for (batch, broken) in batches.iter().zip(broken) {
            let sample = |(ids, response, marks): &Sample| {
                Arc::new(TokenizedInput::clone(&input(ids, *response)).with_steps(marks.clone()).unwrap())
            };
            let inputs: Vec<_> = batch.iter().map(sample).collect();
            if broken {
                harness.control.cancel_next();
                // Where nothing is read there is nothing to cancel.
                drop(harness.run(&inputs));
                harness.control.cancel_none();
            }
            harness.check(&inputs);
        }
    }
}
