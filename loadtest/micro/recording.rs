//! What it costs to record a request's samples, on whichever thread: `cargo bench -p karat-runs --bench recording`.
//!
//! Requests of 32 samples, 32 of them a step, are left to the recorder and folded in. A time is that of 64 of them.

#![allow(missing_docs, reason = "divan's attribute makes items that can't be documented")]
#![allow(clippy::unwrap_used, reason = "a benchmark's input is its own")]

use std::{hint::black_box, sync::Arc, time::Duration};

use divan::{Bencher, counter::ItemsCount};
use karat_rules::domain::ModelName;
use karat_runs::{
    registry::{Bounds, ClaimedRun, Recorder, Runs},
    run::{OriginRef, Request, RequestKey},
    statistics::Observation,
};

const SAMPLES: usize = 32;
const REQUESTS: usize = 64;

fn main() {
    divan::main();
}

/// A run, and samples for it whose rewards nearly all differ.
struct Recording {
    recorder: Recorder,
    run: ClaimedRun,
    model: ModelName,
    samples: Vec<Observation>,
    members: Vec<f32>,
    requests: u64,
}

impl Recording {
    fn new(width: usize) -> Self {
        let runs = Arc::new(Runs::new(Bounds { runs: 1000, bytes: 1 << 30 }));
        let run = runs.claim(&"bench".parse().unwrap(), None, || 1).run;
        let mut random = fastrand::Rng::with_seed(1);
        let mut sample = || {
            let reward = random.f64() * 10.0 - 5.0;
            let variance = if width > 1 { random.f64() } else { 0.0 };
            let (mean, worst_case) = (reward, reward - variance.sqrt());
            let (length, hash) = (random.u32(20..2000), random.u64(..));
            Observation {
                reward,
                mean,
                worst_case,
                variance,
                length,
                hash,
                cut: false,
                at_bound: false,
                refusal: false,
            }
        };
        let samples: Vec<Observation> = (0..SAMPLES * REQUESTS * 16).map(|_| sample()).collect();
        let members = if width > 1 { (0..SAMPLES * width).map(|_| random.f32()).collect() } else { Vec::new() };
        // Whatever gathers is folded where that is measured.
        let recorder = Recorder::start(runs, Duration::MAX).unwrap();
        let model = "relevance".parse().unwrap();
        Self { recorder, run, model, samples, members, requests: 0 }
    }

    fn request(&mut self) {
        let step = Some(self.requests / 32);
        let origin = OriginRef { step, task: None, model: &self.model, probabilities: false };
        let request = Request::whole(RequestKey::of("0199c7f2-7a5b-7cc3-9c3e-1f2d3c4b5a69"));
        let first = (self.requests as usize * SAMPLES) % self.samples.len();
        let samples = self.samples[first..first + SAMPLES].iter().copied();
        self.recorder.record(
            self.run.clone(),
            origin,
            request,
            samples,
            (!self.members.is_empty()).then(|| self.members.iter().copied()),
        );
        self.requests += 1;
    }
}

#[divan::bench(args = [1, 4])]
fn leave_and_fold(bencher: Bencher<'_, '_>, members: usize) {
    let mut recording = Recording::new(members);
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(|| {
        (0..REQUESTS).for_each(|_| recording.request());
        black_box(&recording.recorder).flush();
    });
}
