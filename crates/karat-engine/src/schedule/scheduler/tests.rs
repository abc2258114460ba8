//! The driver under a fake executor: every wait here is for an event, none for the clock.

mod devices;

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use karat_rules::domain::{Cut, TokenizedInput};
use karat_runtime::fake::{FakeControl, score};

use super::{
    super::Admission,
    super::{Completed, JobError},
    *,
};
use crate::{
    telemetry::testing::Recorded,
    workers::{Roster, Stage},
};

struct Harness {
    control: FakeControl,
    single: FakeControl,
    metrics: Recorded,
    scheduler: Scheduler,
}

fn harness(parallel: usize, single: bool, policy: Policy, limits: QueueLimits) -> Harness {
    let metrics = Recorded::new();
    let model = metrics.model.clone();
    let (control, single_control) = (FakeControl::new(), FakeControl::new());
    let executors = Executors {
        parallel: (0..parallel).map(|_| control.executor()).collect(),
        single: single.then(|| single_control.executor()),
    };
    let scheduler = Scheduler::start(executors, policy, limits, model).unwrap();
    Harness { control, single: single_control, metrics, scheduler }
}

fn one_worker() -> Harness {
    harness(1, false, Policy::default(), QueueLimits::default())
}

fn job(ids: &[u32]) -> Job {
    let input = TokenizedInput::new(ids.to_vec(), vec![0; ids.len()], 0..ids.len(), Cut::default()).unwrap();
    Job::new(Arc::new(input))
}

fn jobs(count: u32) -> Vec<Job> {
    (1..=count).map(|id| job(&[id, id + 1])).collect()
}

fn assert_score(result: &Result<Completed, JobError>, ids: &[u32]) {
    let rows = &result.as_ref().unwrap().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].values()[0].to_bits(), score(ids).to_bits());
}

impl Harness {
    /// Puts one job on the worker and holds it there, so that whatever comes next waits.
    fn occupy(&self) -> Ticket {
        self.control.close();
        let ticket = self.scheduler.submit(vec![job(&[9_999])]).unwrap().remove(0);
        self.control.wait_for_held(1);
        ticket
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.has(line)
    }
}

#[tokio::test]
async fn every_job_gets_its_own_score() {
    let harness = harness(3, true, Policy::default(), QueueLimits::default());
    let inputs: Vec<Vec<u32>> = (0..200_u32).map(|seed| (0..=seed * 7 % 40).map(|at| seed + at).collect()).collect();
    let tickets = harness.scheduler.submit(inputs.iter().map(|ids| job(ids)).collect()).unwrap();
    for (ticket, ids) in tickets.into_iter().zip(&inputs) {
        let result = ticket.await;
        assert_score(&result, ids);
        assert!(result.unwrap().batch_size >= 1);
    }
    assert_eq!(harness.scheduler.waiting(), (0, 0));
}

#[tokio::test]
async fn a_batch_is_formed_when_the_worker_becomes_free() {
    let harness = one_worker();
    let first = harness.occupy();
    let mut tickets = Vec::new();
    for job in jobs(5) {
        tickets.extend(harness.scheduler.submit(vec![job]).unwrap());
    }
    harness.control.open();
    assert_eq!(first.await.unwrap().batch_size, 1);
    for ticket in tickets {
        assert_eq!(ticket.await.unwrap().batch_size, 5, "five requests share the pass that starts after all came");
    }
    assert!(harness.metric("karat_queue_wait_seconds_count{model=\"m\"} 6"));
}

#[tokio::test]
async fn a_single_job_runs_on_all_cores_and_several_run_side_by_side() {
    let harness = harness(2, true, Policy { single_jobs: 1, ..Policy::default() }, QueueLimits::default());
    assert_score(&harness.scheduler.submit(vec![job(&[1])]).unwrap().remove(0).await, &[1]);
    assert_eq!((harness.single.batches().len(), harness.control.batches().len()), (1, 0));
    harness.control.close();
    let tickets = harness.scheduler.submit(jobs(4)).unwrap();
    harness.control.wait_for_held(2);
    harness.control.open();
    for ticket in tickets {
        assert_eq!(ticket.await.unwrap().batch_size, 2);
    }
    assert_eq!(harness.single.batches().len(), 1);
}

#[tokio::test]
async fn parallel_sessions_wait_while_the_single_session_uses_its_cores() {
    let harness = harness(2, true, Policy::default(), QueueLimits::default());
    harness.single.close();
    let alone = harness.scheduler.submit(vec![job(&[1])]).unwrap().remove(0);
    harness.single.wait_for_held(1);
    let parallel = harness.scheduler.submit(jobs(4)).unwrap();
    assert!(harness.control.batches().is_empty());
    harness.single.open();
    assert!(alone.await.is_ok());
    for ticket in parallel {
        assert!(ticket.await.is_ok());
    }
}

#[tokio::test]
async fn an_abandoned_job_costs_no_pass() {
    let harness = one_worker();
    let first = harness.occupy();
    let mut tickets = harness.scheduler.submit(jobs(4)).unwrap();
    tickets.truncate(1);
    assert_eq!(harness.scheduler.waiting(), (1, 2));
    harness.control.open();
    assert!(first.await.is_ok());
    assert_eq!(tickets.remove(0).await.unwrap().batch_size, 1);
    assert!(harness.metric("karat_samples_cancelled_total{model=\"m\"} 3"));
}

#[tokio::test]
async fn a_pass_is_stopped_only_when_every_client_left() {
    let harness = one_worker();
    let first = harness.occupy();
    let mut pair = harness.scheduler.submit(jobs(2)).unwrap();
    // The first pass ends by the loss of its only client; then the pair starts and is held.
    drop(first);
    harness.control.wait_for_cancelled(1);
    harness.control.wait_for_held(1);
    drop(pair.pop());
    harness.control.open();
    assert_score(&pair.remove(0).await, &[1, 2]);
    assert!(harness.metric("karat_forward_passes_cancelled_total{model=\"m\"} 1"));
    assert!(harness.metric("karat_samples_cancelled_total{model=\"m\"} 2"));
}

#[tokio::test]
async fn an_expired_job_never_runs() {
    let harness = one_worker();
    let first = harness.occupy();
    let expired = Job { deadline: Some(Instant::now()), ..job(&[1]) };
    let ticket = harness.scheduler.submit(vec![expired]).unwrap().remove(0);
    harness.control.open();
    assert!(matches!(ticket.await, Err(JobError::Expired)));
    assert!(first.await.is_ok());
    assert_eq!(harness.control.batches().len(), 1);
    assert!(harness.metric("karat_samples_expired_total{model=\"m\"} 1"));
}

#[tokio::test]
async fn a_request_is_admitted_or_refused_whole() {
    let limits = QueueLimits { queued_tokens: 10, ..QueueLimits::default() };
    let harness = harness(1, false, Policy::default(), limits);
    let first = harness.occupy();
    let large = harness.scheduler.submit(jobs(8)).expect("larger than the bound, but nothing waits");
    assert!(matches!(harness.scheduler.submit(jobs(1)), Err(QueueRefusal::Full { waiting_tokens: 16, .. })));
    drop(large);
    let fitting = harness.scheduler.submit(jobs(3)).unwrap();
    assert!(matches!(harness.scheduler.submit(jobs(3)), Err(QueueRefusal::Full { waiting_tokens: 6, .. })));
    assert_eq!(harness.scheduler.waiting(), (3, 6), "no part of the refused request was taken");
    assert!(harness.metric("karat_samples_refused_total{model=\"m\"} 4"));
    harness.control.open();
    for ticket in fitting.into_iter().chain([first]) {
        assert!(ticket.await.is_ok());
    }
}

#[tokio::test]
async fn a_request_that_would_come_too_late_is_refused() {
    let wait = Some(Duration::from_secs(15));
    let limits = QueueLimits { wait, tokens_per_second: Some(1.0), ..QueueLimits::default() };
    let harness = harness(1, false, Policy::default(), limits);
    // One token runs: a second's work at the rate that is reckoned with.
    let first = harness.occupy();
    let soon = |ids: &[u32], seconds| Job { deadline: Some(Instant::now() + Duration::from_secs(seconds)), ..job(ids) };
    let long = harness.scheduler.submit(vec![soon(&[1; 10], 3600)]).unwrap();
    let refused = harness.scheduler.submit(vec![soon(&[2; 20], 5)]);
    assert!(matches!(refused, Err(QueueRefusal::TooSlow { .. })), "11 s of work go before it: {refused:?}");
    let refused = harness.scheduler.submit(vec![soon(&[3], 5), soon(&[3, 4, 5], 5)]);
    assert!(refused.is_err(), "their own four tokens come after the one that runs: {refused:?}");
    let short = harness.scheduler.submit(vec![soon(&[3], 5)]).expect("it goes before the long one");
    let longer = harness.scheduler.submit(vec![job(&[4; 20])]).unwrap();
    let refused = harness.scheduler.submit(vec![job(&[5])]);
    assert!(matches!(refused, Err(QueueRefusal::TooSlow { wait, .. }) if wait.as_secs() == 32), "{refused:?}");
    let within = |seconds| Job { admission: Admission::Within(Duration::from_secs(seconds)), ..job(&[6]) };
    assert!(harness.scheduler.submit(vec![within(31)]).is_err(), "even a patient client has gone by then");
    let patient = harness.scheduler.submit(vec![within(40)]).expect("32 s are less than 40");
    harness.control.open();
    assert!(first.await.is_ok());
    for ticket in long.into_iter().chain(short).chain(longer).chain(patient) {
        assert!(ticket.await.is_ok());
    }
}

#[tokio::test]
async fn a_poisonous_sample_does_not_take_its_neighbours_with_it() {
    for panics in [false, true] {
        let harness = one_worker();
        if panics {
            harness.control.panic_on(666);
        } else {
            harness.control.fail_on(666);
        }
        let first = harness.occupy();
        let tickets = harness.scheduler.submit(vec![job(&[1]), job(&[666]), job(&[2])]).unwrap();
        harness.control.open();
        assert!(first.await.is_ok());
        let mut results = Vec::new();
        for ticket in tickets {
            results.push(ticket.await);
        }
        assert_score(&results[0], &[1]);
        assert_score(&results[2], &[2]);
        match &results[1] {
            Err(JobError::Panicked) => assert!(panics),
            Err(JobError::Runtime(_)) => assert!(!panics),
            other => panic!("{other:?}"),
        }
        // The worker goes on.
        assert_score(&harness.scheduler.submit(vec![job(&[3])]).unwrap().remove(0).await, &[3]);
    }
}

#[tokio::test]
async fn a_batch_that_does_not_fit_is_split_and_later_ones_are_smaller() {
    let harness = one_worker();
    let first = harness.occupy();
    harness.control.run_out_of_memory_above(6);
    let tickets = harness.scheduler.submit(jobs(16)).unwrap();
    harness.control.open();
    assert!(first.await.is_ok());
    for (ticket, id) in tickets.into_iter().zip(1..) {
        assert_score(&ticket.await, &[id, id + 1]);
    }
    // 16 jobs of 2 tokens: 32, 16 and 8 positions don't fit, 4 do.
    assert!(harness.metric("karat_forward_passes_out_of_memory_total{model=\"m\"} 7"));
    let tries = harness.control.batches().len();

    let first = harness.occupy();
    let tickets = harness.scheduler.submit(jobs(16)).unwrap();
    harness.control.open();
    assert!(first.await.is_ok());
    for (ticket, id) in tickets.into_iter().zip(1..) {
        assert_score(&ticket.await, &[id, id + 1]);
    }
    let later: Vec<usize> = harness.control.batches()[tries + 1..].iter().map(Vec::len).collect();
    assert_eq!(later, [2; 8], "the bound was learned");
}

#[tokio::test]
async fn passes_that_an_executor_splits_by_itself_are_counted_once_each() {
    let harness = one_worker();
    harness.control.retry(3);
    for id in [1, 2] {
        assert_score(&harness.scheduler.submit(vec![job(&[id])]).unwrap().remove(0).await, &[id]);
    }
    assert!(harness.metric("karat_forward_passes_out_of_memory_total{model=\"m\"} 3"));
    assert!(harness.metric("karat_forward_passes_failed_total{model=\"m\"} 0"));
}

#[tokio::test]
async fn a_sample_that_never_fits_fails_alone() {
    let harness = one_worker();
    let first = harness.occupy();
    harness.control.run_out_of_memory_above(4);
    let mut all = jobs(3);
    all.push(job(&[1, 2, 3, 4, 5]));
    let mut tickets = harness.scheduler.submit(all).unwrap();
    harness.control.open();
    assert!(first.await.is_ok());
    let error = tickets.pop().unwrap().await.unwrap_err().to_string();
    assert!(error.contains("out of memory") && error.contains("max_tokens"), "{error}");
    for (ticket, id) in tickets.into_iter().zip(1..) {
        assert_score(&ticket.await, &[id, id + 1]);
    }
}

#[tokio::test]
async fn draining_finishes_what_was_admitted() {
    let harness = harness(2, true, Policy { max_batch: 1, ..Policy::default() }, QueueLimits::default());
    let tickets = harness.scheduler.submit(jobs(50)).unwrap();
    let roster = Roster::default();
    harness.scheduler.enlist(&roster, Stage::Serving);
    roster.drain();
    assert!(matches!(harness.scheduler.submit(jobs(1)), Err(QueueRefusal::Stopped)));
    for ticket in tickets {
        assert!(ticket.await.is_ok());
    }
}

#[tokio::test]
async fn dropping_the_scheduler_answers_everyone() {
    let harness = one_worker();
    let first = harness.occupy();
    let waiting = harness.scheduler.submit(jobs(1)).unwrap().remove(0);
    drop(harness.scheduler);
    assert!(matches!(first.await, Err(JobError::Stopped)));
    assert!(matches!(waiting.await, Err(JobError::Stopped)));
}

#[test]
fn a_scheduler_needs_an_executor() {
    let metrics = Recorded::new().model;
    let none = Executors { parallel: Vec::new(), single: Some(FakeControl::new().executor()) };
    let started = Scheduler::start(none, Policy::default(), QueueLimits::default(), metrics);
    assert!(matches!(started, Err(StartError::NoExecutor)));
}

/// What is known of a machine of two cores before anything is measured.
fn conditions() -> calibrate::Conditions {
    let positive = |number| NonZeroUsize::new(number).unwrap();
    calibrate::Conditions {
        hardware: calibrate::Hardware::Processor { cores: positive(2) },
        longest: positive(64),
        max_batch_tokens: positive(1024),
        batch_invariant: true,
        token: 5,
        time: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn a_job_that_arrives_while_sessions_are_measured_goes_first() {
    let harness = harness(2, true, Policy::default(), QueueLimits::default());
    harness.control.close();
    harness.single.close();
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| harness.scheduler.calibrate(&conditions(), |_| panic!("nothing was measured")));
        // Both sessions of one thread compute the first probe, and would for ever.
        harness.control.wait_for_held(2);
        let ticket = harness.scheduler.submit(vec![job(&[1, 2])]).unwrap().remove(0);
        harness.control.wait_for_cancelled(2);
        assert!(measured.join().unwrap().unwrap().is_none());
        harness.control.open();
        harness.single.open();
        assert_score(&futures_executor::block_on(ticket), &[1, 2]);
    });
}

#[tokio::test]
async fn nothing_is_measured_while_something_runs() {
    let harness = one_worker();
    let running = harness.occupy();
    assert!(harness.scheduler.calibrate(&conditions(), |_| panic!("nothing was measured")).unwrap().is_none());
    harness.control.open();
    assert_score(&running.await, &[9_999]);
}

#[tokio::test]
async fn a_server_that_ends_waits_for_no_measuring() {
    let harness = harness(2, true, Policy::default(), QueueLimits::default());
    let roster = Roster::default();
    harness.scheduler.enlist(&roster, Stage::Serving);
    harness.control.close();
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| harness.scheduler.calibrate(&conditions(), |_| panic!("nothing was measured")));
        harness.control.wait_for_held(2);
        roster.drain();
        assert!(measured.join().unwrap().unwrap().is_none());
    });
}

#[tokio::test]
async fn what_was_chosen_holds_from_then_on_with_the_sessions_that_it_wants() {
    let usual = calibrate::Calibration::assumed(&conditions());
    let one = NonZeroUsize::MIN;
    let all = NonZeroUsize::new(2).unwrap();
    // One session on all cores for everything; the session on all cores left out; all of them.
    for (chosen, on_single, side_by_side) in [
        (calibrate::Calibration { sessions: one, threads: all, single_threads: None, ..usual }, 4, 0),
        (calibrate::Calibration { single_threads: None, ..usual }, 0, 2),
        (usual, 1, 2),
    ] {
        let harness = harness(2, true, Policy::default(), QueueLimits::default());
        let loan = harness.scheduler.workers.work().borrow().expect("nothing waits");
        loan.adopt(&chosen, Policy { max_batch: 1, ..chosen.policy() });
        harness.control.close();
        let mut tickets = harness.scheduler.submit(vec![job(&[1])]).unwrap();
        if on_single > 0 {
            assert_score(&tickets.remove(0).await, &[1]);
        }
        if side_by_side > 0 {
            tickets.extend(harness.scheduler.submit(jobs(3)).unwrap());
            harness.control.wait_for_held(side_by_side);
        } else {
            tickets.extend(harness.scheduler.submit(jobs(3)).unwrap());
        }
        harness.control.open();
        for ticket in tickets {
            assert_eq!(ticket.await.unwrap().batch_size, 1, "as the policy wants");
        }
        assert_eq!(harness.single.batches().len(), on_single, "{chosen:?}");
    }
}
