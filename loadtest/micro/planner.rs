//! What the choice of a batch costs while many jobs wait: `cargo bench --bench planner`.
//!
//! A worker holds the queue's lock while it plans, so this bounds how many workers one queue can feed.

#![allow(missing_docs, reason = "divan's attribute makes items that can't be documented")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use divan::{Bencher, counter::ItemsCount};
use karat_engine::schedule::{ClientId, Planner, Policy, Priority, WaitingJob};

const QUEUED: [usize; 3] = [64, 1_000, 10_000];
const WORKERS: usize = 2;

fn main() {
    divan::main();
}

/// Lengths without a pattern, from 20 to 511 tokens.
fn jobs(count: usize) -> impl Iterator<Item = WaitingJob<usize>> {
    (0..count).map(|number| WaitingJob::new(20 + (number * 2_654_435_761) % 492, number))
}

fn filled(count: usize, start: Instant) -> Planner<usize> {
    let mut planner = Planner::new(Policy::default());
    for (number, job) in jobs(count).enumerate() {
        planner.push(job, start + Duration::from_micros(number as u64));
    }
    planner
}

/// A job comes while others wait.
#[divan::bench(args = QUEUED)]
fn push(bencher: Bencher<'_, '_>, queued: usize) {
    let start = Instant::now();
    let mut planner = filled(queued, start);
    bencher.bench_local(|| {
        for job in jobs(1) {
            let id = planner.push(black_box(job), start);
            planner.remove(id);
        }
    });
}

/// A worker asks for a batch while others wait; what it took comes back, so that the queue keeps its length.
#[divan::bench(args = QUEUED)]
fn plan(bencher: Bencher<'_, '_>, queued: usize) {
    let start = Instant::now();
    let mut planner = filled(queued, start);
    bencher.bench_local(|| {
        let batch = planner.plan(start, WORKERS).unwrap_or_default();
        for planned in batch {
            planner.push(planned.job, start);
        }
    });
}

/// Everything that waits is planned, batch by batch.
#[divan::bench(args = QUEUED)]
fn drain(bencher: Bencher<'_, '_>, queued: usize) {
    let start = Instant::now();
    bencher.counter(ItemsCount::new(queued)).with_inputs(|| filled(queued, start)).bench_local_values(|mut planner| {
        while let Some(batch) = planner.plan(start, WORKERS) {
            black_box(batch);
        }
    });
}

/// A request asks how much goes before it.
#[divan::bench(args = QUEUED)]
fn tokens_before(bencher: Bencher<'_, '_>, queued: usize) {
    let start = Instant::now();
    let planner = filled(queued, start);
    let (client, remaining) = (ClientId::default(), Duration::from_secs(60));
    bencher.bench_local(|| planner.tokens_before(client, black_box(200), Priority::Normal, remaining, start));
}
