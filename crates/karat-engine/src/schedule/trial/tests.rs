//! Graphs that mind their company, and those that do not.

use karat_rules::domain::Cut;

use super::*;

/// Scores a sample by a function of its own tokens, its row's length, the rows of its pass and how many passes went before.
struct Graph<F> {
    score: F,
    passes: usize,
    pads: bool,
}

impl<F: FnMut(&Seen<'_>) -> f32 + Send> Executor for Graph<F> {
    fn run(&mut self, batch: &TokenBatch, _cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        self.passes += 1;
        let lines: Vec<Vec<u32>> = texts_of(batch);
        let longest = batch.longest();
        let rows = lines.iter().map(|ids| {
            let seen = Seen { ids, longest, samples: batch.len(), passes: self.passes };
            let score = (self.score)(&seen);
            RowTensor::new(vec![1], vec![score]).into_iter().collect()
        });
        Ok(rows.collect())
    }

    fn pads(&self) -> bool {
        self.pads
    }
}

struct Seen<'a> {
    ids: &'a [u32],
    longest: usize,
    samples: usize,
    passes: usize,
}

/// The texts of a batch, by running it through an executor that tells them.
fn texts_of(batch: &TokenBatch) -> Vec<Vec<u32>> {
    let control = karat_runtime::fake::FakeControl::new();
    control.executor().run(batch, &Cancellation::new()).unwrap();
    control.batches().remove(0)
}

fn sum(ids: &[u32]) -> f32 {
    ids.iter().sum::<u32>() as f32 / 1000.0
}

fn texts() -> Vec<Arc<TokenizedInput>> {
    let text = |ids: Vec<u32>| {
        let length = ids.len();
        Arc::new(TokenizedInput::new(ids, vec![0; length], 0..length, Cut::default()).unwrap())
    };
    [vec![11, 12, 13], vec![20, 30, 40, 50], vec![21, 31, 41, 51], vec![60; 9]].map(text).into()
}

fn conditions() -> Conditions {
    Conditions {
        rounds_to: ElementType::Float32,
        masks: true,
        quantises: false,
        most_samples: 32,
        most_tokens: 512,
        time: Duration::from_secs(60),
    }
}

fn tried(conditions: &Conditions, pads: bool, score: impl FnMut(&Seen<'_>) -> f32 + Send) -> Trial {
    let mut graph = Graph { score, passes: 0, pads };
    Alone::compute(&mut graph, &texts()).unwrap().compare(&mut graph, conditions).unwrap()
}

#[test]
fn a_sound_graph_takes_any_company() {
    let trial = tried(&conditions(), true, |seen| sum(seen.ids));
    let tolerance = 1e-4;
    assert_eq!(
        trial,
        Trial { company: Company::Any, largest_difference: Some(0.0), tolerance, reason: None, broken: false }
    );
    // What adding in another order makes of large numbers is no fault.
    let large = tried(&conditions(), true, |seen| 1e4 + 0.05 * seen.samples.min(2) as f32);
    assert_eq!((large.company, large.broken), (Company::Any, false), "{large:?}");
}

#[test]
fn a_graph_that_sees_padding_keeps_to_equal_lengths() {
    let trial = tried(&conditions(), true, |seen| sum(seen.ids) + 0.01 * (seen.longest - seen.ids.len()) as f32);
    assert_eq!((trial.company, trial.broken), (Company::EqualLengths, true));
    assert!((trial.largest_difference.unwrap() - 0.06).abs() < 1e-6, "six places of padding: {trial:?}");
    assert!(trial.reason.unwrap().contains("sees padding"));
}

#[test]
fn a_graph_whose_samples_mix_runs_them_alone() {
    let mixes = |seen: &Seen<'_>| sum(seen.ids) + 0.5 * (seen.samples - 1) as f32;
    let trial = tried(&conditions(), true, mixes);
    assert_eq!((trial.company, trial.broken), (Company::Alone, true));
    let quantised = tried(&Conditions { quantises: true, ..conditions() }, true, mixes);
    assert_eq!((quantised.company, quantised.broken), (Company::Alone, false), "it is known to");
    assert!(quantised.largest_difference.unwrap() > 1.0 && quantised.reason.unwrap().contains("quantises"));
    // Where rows aren't padded, equal lengths would be no remedy.
    let packed = tried(&conditions(), false, |seen| sum(seen.ids) + 0.01 * (seen.longest - seen.ids.len()) as f32);
    assert_eq!((packed.company, packed.broken), (Company::Alone, true));
}

#[test]
fn without_a_mask_nothing_is_padded() {
    let bare = Conditions { masks: false, ..conditions() };
    let trial = tried(&bare, true, |seen| sum(seen.ids) / seen.longest as f32);
    assert_eq!((trial.company, trial.broken, trial.largest_difference), (Company::EqualLengths, false, Some(0.0)));
    assert!(trial.reason.unwrap().contains("attention_mask"));
}

#[test]
fn only_what_a_format_rounds_is_let_pass() {
    let moved = |by: f32| move |seen: &Seen<'_>| sum(seen.ids) + by * (seen.samples.min(2) - 1) as f32;
    for (rounds_to, small, large) in
        [(ElementType::Float32, 5e-5, 1e-3), (ElementType::Float16, 5e-3, 2e-2), (ElementType::Bfloat16, 5e-2, 0.2)]
    {
        let conditions = Conditions { rounds_to, ..conditions() };
        assert_eq!(tried(&conditions, true, moved(small)).company, Company::Any, "{rounds_to} {small}");
        assert_eq!(tried(&conditions, true, moved(large)).company, Company::Alone, "{rounds_to} {large}");
    }
}

#[test]
fn a_text_that_overflows_is_left_out_and_one_that_only_does_in_company_is_not() {
    let overflows = |seen: &Seen<'_>| if seen.ids[0] == 60 { f32::NAN } else { sum(seen.ids) };
    assert_eq!(tried(&conditions(), true, overflows).company, Company::Any);
    let in_company = |seen: &Seen<'_>| if seen.samples > 1 { f32::NAN } else { sum(seen.ids) };
    assert_eq!(tried(&conditions(), true, in_company).company, Company::Alone);
}

#[test]
fn a_graph_that_draws_at_random_is_found() {
    let mut graph = Graph { score: |seen: &Seen<'_>| seen.passes as f32, passes: 0, pads: true };
    let alone = Alone::compute(&mut graph, &texts()).unwrap();
    assert_eq!(alone.wavers(ElementType::Float32), Some(4.0), "the first of four texts is repeated in the fifth pass");
    let mut sound = Graph { score: |seen: &Seen<'_>| sum(seen.ids), passes: 0, pads: true };
    assert_eq!(Alone::compute(&mut sound, &texts()).unwrap().wavers(ElementType::Float32), None);
}

#[test]
fn large_batches_are_left_out_where_time_is_short() {
    let hurried = Conditions { time: Duration::ZERO, ..conditions() };
    let mut most = 0;
    let trial = tried(&hurried, true, |seen| {
        most = most.max(seen.samples);
        sum(seen.ids)
    });
    assert_eq!((trial.company, most), (Company::Any, 4), "each text once, no more");
}
