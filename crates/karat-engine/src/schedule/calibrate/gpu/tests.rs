//! Choices for GPUs that are made up, and what their policies do to a stream of samples.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use karat_runtime::{Shapes, fake::FakeControl};

use super::*;
use crate::schedule::{Planner, Policy, WaitingJob};

fn positive(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn conditions(devices: usize, sessions_each: usize) -> Conditions {
    Conditions {
        hardware: Hardware::Gpu {
            devices: positive(devices),
            sessions_each: positive(sessions_each),
            most_samples: None,
        },
        longest: positive(512),
        max_batch_tokens: positive(65_536),
        batch_invariant: true,
        token: 1,
        time: Duration::from_secs(2),
    }
}

/// GPUs that take `overhead` tokens' time to start a pass and hold `memory` positions; a second session on one hides
/// the share `hidden` of what starting costs.
fn machine(
    devices: usize,
    overhead: f64,
    hidden: f64,
    memory: usize,
) -> impl FnMut(NonZeroUsize, usize, usize) -> Option<f64> {
    move |sessions, samples, tokens| {
        let each = sessions.get() / devices;
        let positions = samples * tokens;
        let start = if each > 1 { overhead * (1.0 - hidden) } else { overhead };
        (positions <= memory).then(|| float(each) * (float(positions) + start) / 1e6)
    }
}

const ENOUGH: usize = 1 << 30;

#[test]
fn batches_are_as_large_as_helps_and_no_larger() {
    let chosen = choose(&conditions(1, 1), &mut machine(1, 1000.0, 0.0, ENOUGH));
    assert_eq!(chosen.batch_tokens, 32_768, "twice that would be 1.5 % faster");
    assert_eq!(chosen.batch_samples, 1024);
    assert!((995..=1005).contains(&chosen.overhead_tokens), "{chosen:?}");
    assert!(chosen.tokens_per_second.unwrap() > 0.95e6);
    let quick = choose(&conditions(1, 1), &mut machine(1, 20.0, 0.0, ENOUGH));
    assert_eq!(quick.batch_tokens, 1024, "a GPU that starts quickly keeps everyone's wait short");
}

#[test]
fn memory_bounds_the_batch() {
    let chosen = choose(&conditions(1, 2), &mut machine(1, 4000.0, 0.5, 10_000));
    assert_eq!(chosen.batch_tokens, 8192);
}

#[test]
fn a_second_session_is_kept_only_when_it_helps() {
    let chosen = choose(&conditions(2, 2), &mut machine(2, 4000.0, 0.9, ENOUGH));
    assert_eq!(chosen.sessions.get(), 4);
    let chosen = choose(&conditions(2, 2), &mut machine(2, 4000.0, 0.0, ENOUGH));
    assert_eq!(chosen.sessions.get(), 2, "one on each GPU");
}

#[test]
fn an_engines_profile_is_kept() {
    let hardware =
        Hardware::Gpu { devices: positive(1), sessions_each: positive(1), most_samples: NonZeroUsize::new(32) };
    let chosen = choose(&Conditions { hardware, ..conditions(1, 1) }, &mut machine(1, 1e5, 0.0, ENOUGH));
    assert!(chosen.batch_samples <= 32 && chosen.batch_tokens <= 32 * USUAL, "{chosen:?}");
}

#[test]
fn a_graph_that_depends_on_the_batch_runs_alone() {
    let dependent = Conditions { batch_invariant: false, ..conditions(1, 2) };
    assert_eq!(choose(&dependent, &mut machine(1, 1000.0, 0.0, ENOUGH)).policy().max_batch, 1);
}

#[test]
fn running_out_of_memory_while_measuring_is_no_failure() {
    let control = FakeControl::new();
    control.run_out_of_memory_above(5000);
    let super::super::Calibrated { calibration: chosen, executors, .. } =
        super::super::calibrate(&conditions(1, 2), &mut |_| Ok(control.executor())).unwrap();
    assert!(chosen.batch_tokens <= 5000, "{chosen:?}");
    assert_eq!(executors.parallel.len(), chosen.sessions.get());
    assert!(executors.single.is_none());
}

/// Closed-loop clients with lengths as the load test draws them; gives the share of padding among all positions.
fn padding(policy: Policy, clients: usize, workers: usize) -> f64 {
    const SAMPLES: usize = 2000;
    let mut random = fastrand::Rng::with_seed(29);
    // Log-normal, of median 160 and deviation 0.7; twelve uniform numbers make about a normal one.
    let mut length = move || {
        let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        whole((160.0 * (0.7 * normal).exp()).clamp(16.0, 512.0))
    };
    let mut now = Instant::now();
    let mut planner = Planner::new(policy);
    let job = |tokens| WaitingJob::new(tokens, ());
    for _ in 0..clients {
        planner.push(job(length()), now);
    }
    let mut running: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    let (mut tokens, mut positions, mut sent) = (0, 0, clients);
    loop {
        while running.len() < workers
            && let Some(batch) = planner.plan(now, workers - running.len())
        {
            let padded = batch.iter().map(|planned| planned.job.tokens).max().unwrap_or(0) * batch.len();
            tokens += batch.iter().map(|planned| planned.job.tokens).sum::<usize>();
            positions += padded;
            // A microsecond a position.
            let took = Duration::from_micros(u64::try_from(policy.overhead + padded).unwrap());
            running.push(Reverse((now + took, batch.len())));
        }
        let Some(Reverse((ended, count))) = running.pop() else { break };
        now = ended;
        for _ in 0..count.min(SAMPLES.saturating_sub(sent)) {
            planner.push(job(length()), now);
            sent += 1;
        }
    }
    assert_eq!(sent, SAMPLES);
    float(positions - tokens) / float(positions)
}

#[test]
fn padding_stays_below_a_tenth_on_the_mixed_workload() {
    for overhead in [250.0, 1000.0, 2000.0] {
        for sessions in [1, 2] {
            let chosen = choose(&conditions(1, sessions), &mut machine(1, overhead, 0.5, ENOUGH));
            let share = padding(chosen.policy(), 256, sessions);
            assert!(share < 0.1, "{share:.3} is padding with an overhead of {overhead} and {chosen:?}");
        }
    }
    let unbounded = Policy { padding_percent: 100, ..Calibration::assumed(&conditions(1, 1)).policy() };
    assert!(padding(unbounded, 256, 1) > 0.1, "without the bound there would be more");
}

#[test]
fn no_shape_is_measured_twice() {
    let control = FakeControl::new();
    super::super::calibrate(&conditions(1, 1), &mut |_| Ok(control.executor())).unwrap();
    let shapes: Vec<(usize, usize)> = control.batches().iter().map(|batch| (batch.len(), batch[0].len())).collect();
    let different: std::collections::HashSet<_> = shapes.iter().collect();
    assert!(shapes.len() > 4 && different.len() == shapes.len(), "{shapes:?}");
}

#[test]
fn every_shape_that_traffic_comes_to_was_planned_before() {
    let longest = positive(512);
    let shapes = Shapes::new(longest);
    let calibration = Calibration::assumed(&conditions(1, 1));
    let control = FakeControl::new();
    let mut executors = calibration.executors(&mut |_| Ok(control.rounding(shapes))).unwrap();
    let planned = plan_shapes(&mut executors, &calibration, 1).unwrap();
    let ran: std::collections::HashSet<[usize; 2]> =
        control.batches().iter().map(|batch| [batch.len(), batch[0].len()]).collect();
    assert_eq!((ran.len(), ran.len() < 160), (planned, true));

    let policy = Policy { shapes: Some(shapes), ..calibration.policy() };
    let mut random = fastrand::Rng::with_seed(7);
    let mut planner = Planner::new(policy);
    let now = Instant::now();
    let (mut positions, mut tokens) = (0, 0);
    for round in 0..400 {
        for _ in 0..random.usize(1..if round % 4 == 0 { 300 } else { 9 }) {
            planner.push(WaitingJob::new(random.usize(1..=512), ()), now);
        }
        let batch = planner.plan(now, 1).unwrap();
        let longest = batch.iter().map(|planned| planned.job.tokens).max().unwrap();
        let [rows, length] = shapes.rounded([batch.len(), longest]);
        assert!(ran.contains(&[rows, length]), "{rows} of {length} are new");
        assert!((rows - batch.len()) * length <= policy.overhead, "{} samples are padded to {rows}", batch.len());
        positions += rows * length;
        tokens += batch.iter().map(|planned| planned.job.tokens).sum::<usize>();
    }
    assert!(positions < tokens * 3 / 2, "{positions} positions for {tokens} tokens");
}

#[test]
fn a_few_samples_share_a_pass_whatever_their_lengths() {
    let policy = Calibration::assumed(&conditions(1, 1)).policy();
    let now = Instant::now();
    let mut planner = Planner::new(policy);
    for tokens in [20, 300, 500] {
        planner.push(WaitingJob::new(tokens, ()), now);
    }
    assert_eq!(planner.plan(now, 1).unwrap().len(), 3, "two passes more would cost more than the padding");
}
