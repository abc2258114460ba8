//! What the mathematics of one best-of-n request costs, apart from the model: `cargo bench --bench scoring`.
//!
//! The `request` benchmark is the whole of it for 64 candidates of 5 members: their aggregation, a chain of transforms
//! and the selection. The others take it apart.

#![allow(clippy::unwrap_used, reason = "a benchmark's input is its own")]
#![allow(missing_docs, reason = "divan's attribute makes items that can't be documented")]

use std::hint::black_box;

use divan::Bencher;
use karat_rules::{
    aggregate::{self, Aggregation, Members},
    domain::{Reward, catalogue::Choice},
    select::{self, Candidates, Ranking, best_of_n_curve},
    transform::{Available, Chain, Context, Signal},
};

const CANDIDATES: usize = 64;
const MEMBERS: usize = 5;

fn main() {
    divan::main();
}

/// Scores without a pattern that a branch predictor could learn.
fn scores() -> Vec<Vec<Reward>> {
    let score = |index: usize| Reward::new(((index * 2_654_435_761) % 10_007) as f64 / 1_000.0 - 5.0).unwrap();
    (0..CANDIDATES).map(|candidate| (0..MEMBERS).map(|member| score(candidate * MEMBERS + member)).collect()).collect()
}

fn members() -> Vec<Members> {
    scores().iter().map(|scores| Members::new(scores).unwrap()).collect()
}

fn choice(json: &str) -> Choice {
    serde_json::from_str(json).unwrap()
}

fn chain(json: &str) -> Chain {
    let choices: Vec<Choice> = serde_json::from_str(json).unwrap();
    Chain::build_for(&choices, &Available { group: CANDIDATES, ..Available::alone(false) }).unwrap()
}

const CHAIN: &str =
    r#"[{"clip":{"min":-10,"max":10}},{"log_sigmoid":{"reference":{"quantile":{"level":0.85,"of":"group"}}}},"grpo"]"#;

#[divan::bench]
fn request(bencher: Bencher<'_, '_>) {
    let scores = scores();
    let rule = aggregate::CATALOGUE.build(&choice(r#"{"uncertainty_weighted":{"lambda":0.5}}"#)).unwrap();
    let chain = chain(CHAIN);
    let selection = select::CATALOGUE.build(&choice("\"best_of_n\"")).unwrap();
    bencher.bench_local(|| {
        let members: Vec<Members> = scores.iter().map(|scores| Members::new(scores).unwrap()).collect();
        let raw = rule.aggregate_group(&members).unwrap();
        let mut signals: Vec<Signal> = raw.iter().map(|reward| Signal::Outcome(reward.get())).collect();
        chain.apply_with(&mut signals, &Context::default()).unwrap();
        let rewards: Vec<Reward> = signals.iter().map(|signal| Reward::new(signal.total()).unwrap()).collect();
        let selected = selection.select(&Candidates::new(&rewards).unwrap()).unwrap();
        black_box((selected, Ranking::of(&rewards)))
    });
}

#[divan::bench(args = ["\"mean\"", "\"worst_case\"", r#"{"uncertainty_weighted":{"lambda":0.5}}"#, "\"median\"",
    r#"{"cvar":{"share":0.4}}"#, r#"{"weighted":{"weights":[1,2,3,4,5]}}"#, r#"{"log_sigmoid_and":{"references":[0,0,0,0,0]}}"#,
    r#"{"win_rate":{"preference":"sigmoid"}}"#, r#"{"win_rate":{"preference":"strict"}}"#])]
fn aggregation(bencher: Bencher<'_, '_>, json: &str) {
    let members = members();
    let rule: Box<dyn Aggregation> = aggregate::CATALOGUE.build(&choice(json)).unwrap();
    bencher.bench_local(|| rule.aggregate_group(black_box(&members)).unwrap());
}

#[divan::bench]
fn transforms(bencher: Bencher<'_, '_>) {
    let chain = chain(CHAIN);
    let signals: Vec<Signal> = (0..CANDIDATES).map(|index| Signal::Outcome(index as f64 / 7.0)).collect();
    bencher.with_inputs(|| signals.clone()).bench_local_values(|mut signals| {
        chain.apply_with(&mut signals, &Context::default()).unwrap();
        signals
    });
}

#[divan::bench(args = [64, 1_024, 12_600])]
fn curve(bencher: Bencher<'_, '_>, count: usize) {
    let proxy: Vec<f64> = (0..count).map(|index| ((index * 2_654_435_761) % 10_007) as f64).collect();
    bencher.bench_local(|| best_of_n_curve(black_box(&proxy), None).unwrap());
}
