//! Laws of the planner, held against random arrivals.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::*;

mod clients;

/// What may happen to a planner.
#[derive(Debug, Clone)]
enum Event {
    Arrive {
        tokens: usize,
        priority: Priority,
        deadline: Option<u64>,
    },
    /// A worker becomes free while `free - 1` others are.
    Free {
        free: usize,
    },
    /// The client of one of the waiting jobs leaves.
    Leave {
        which: prop::sample::Index,
    },
    Wait {
        milliseconds: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let priority = prop_oneof![1 => Just(Priority::Low), 4 => Just(Priority::Normal), 1 => Just(Priority::High)];
    let tokens = prop_oneof![4 => 1..200_usize, 1 => 200..2000_usize];
    prop_oneof![
        6 => (tokens, priority, prop::option::weighted(0.3, 0..5000_u64))
            .prop_map(|(tokens, priority, deadline)| Event::Arrive { tokens, priority, deadline }),
        3 => (1..4_usize).prop_map(|free| Event::Free { free }),
        1 => any::<prop::sample::Index>().prop_map(|which| Event::Leave { which }),
        2 => (0..2000_u64).prop_map(|milliseconds| Event::Wait { milliseconds }),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (1..1024_usize, 1..40_usize, 1..80_usize, 0..100_usize, 1..=100_usize).prop_map(
        |(budget, max_batch, window, overhead, padding_percent)| Policy {
            budget,
            max_batch,
            window,
            overhead,
            padding_percent,
            ..Policy::default()
        },
    )
}

fn waiting(tokens: usize) -> WaitingJob<()> {
    WaitingJob::new(tokens, ())
}

fn lengths<T>(batch: &[Planned<T>]) -> Vec<usize> {
    batch.iter().map(|planned| planned.job.tokens).collect()
}

proptest! {
    #[test]
    fn every_batch_keeps_the_policy_and_no_job_is_lost_or_run_twice(policy in policy(), events in vec(event(), 1..200)) {
        let mut now = Instant::now();
        let mut planner = Planner::new(policy);
        let mut waiting: HashMap<JobId, (usize, Option<Instant>)> = HashMap::new();
        let mut seen = HashSet::new();
        for event in events {
            match event {
                Event::Arrive { tokens, priority, deadline } => {
                    let deadline = deadline.map(|after| now + Duration::from_millis(after));
                    let id = planner.push(WaitingJob { priority, deadline, ..WaitingJob::new(tokens, ()) }, now);
                    prop_assert!(seen.insert(id), "an id came twice");
                    waiting.insert(id, (tokens, deadline));
                }
                Event::Free { free } => {
                    let waits = waiting.values().map(|(tokens, _)| tokens).sum::<usize>();
                    let share = if free > 1 { waits.div_ceil(free) } else { usize::MAX };
                    let alive = waiting.values().any(|(_, deadline)| deadline.is_none_or(|deadline| deadline > now));
                    let Some(batch) = planner.plan(now, free) else {
                        prop_assert!(!alive, "a worker was left idle");
                        continue;
                    };
                    let lengths = lengths(&batch);
                    let padded = lengths.len() * lengths.iter().max().unwrap();
                    let padding = padded - lengths.iter().sum::<usize>();
                    prop_assert!(!lengths.is_empty() && lengths.len() <= policy.max_batch);
                    if lengths.len() > 1 {
                        prop_assert!(padded <= policy.budget && padded <= share, "{lengths:?}");
                        prop_assert!(padding <= policy.overhead * (lengths.len() - 1), "more padding than passes saved");
                        let bounded = waits >= policy.overhead * LARGE;
                        prop_assert!(!bounded || padding * 100 <= padded * policy.padding_percent, "{lengths:?}");
                    }
                    for planned in batch {
                        let (_, deadline) = waiting.remove(&planned.id).expect("chosen twice, or never pushed");
                        prop_assert!(deadline.is_none_or(|deadline| deadline > now), "ran after its deadline");
                    }
                }
                Event::Leave { which } => {
                    let mut ids: Vec<JobId> = waiting.keys().copied().collect();
                    ids.sort_unstable();
                    if !ids.is_empty() {
                        let id = *which.get(&ids);
                        waiting.remove(&id);
                        prop_assert!(planner.remove(id).is_some());
                        prop_assert!(planner.remove(id).is_none());
                    }
                }
                Event::Wait { milliseconds } => {
                    now += Duration::from_millis(milliseconds);
                    let wakeup = planner.next_wakeup();
                    let expired = planner.expire(now);
                    prop_assert_eq!(!expired.is_empty(), wakeup.is_some_and(|wakeup| wakeup <= now));
                    for planned in expired {
                        let (_, deadline) = waiting.remove(&planned.id).expect("expired twice, or after it ran");
                        prop_assert!(deadline.is_some_and(|deadline| deadline <= now), "expired too early");
                    }
                }
            }
            prop_assert_eq!(planner.len(), waiting.len());
            prop_assert_eq!(planner.tokens(), waiting.values().map(|(tokens, _)| tokens).sum::<usize>());
        }
    }

    /// However many others keep coming, a job runs once everything that was due before it has run: only jobs that
    /// arrive before its own due time can go ahead of it.
    #[test]
    fn no_stream_of_arrivals_starves_a_job(policy in policy(), tokens in 1..2000_usize, stream in vec(1..2000_usize, 1..5)) {
        let mut now = Instant::now();
        let mut planner = Planner::new(policy);
        let id = planner.push(WaitingJob { priority: Priority::Low, ..waiting(tokens) }, now);
        let due = now + policy.due_after(tokens, Priority::Low, None);
        let mut arrived_before = 0;
        let mut batches = 0;
        loop {
            for &tokens in &stream {
                planner.push(WaitingJob { priority: Priority::High, ..waiting(tokens) }, now);
                arrived_before += usize::from(now <= due);
            }
            let batch = planner.plan(now, 1).expect("jobs wait");
            if batch.iter().any(|planned| planned.id == id) {
                break;
            }
            batches += 1;
            prop_assert!(batches <= arrived_before, "starved");
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn a_batch_always_holds_the_job_that_is_due_first(policy in policy(), lengths in vec(1..600_usize, 1..100)) {
        let now = Instant::now();
        let mut planner = Planner::new(policy);
        for &tokens in &lengths {
            planner.push(waiting(tokens), now);
        }
        let due = |tokens: usize| policy.due_after(tokens, Priority::Normal, None);
        let mut remaining = lengths;
        while let Some(batch) = planner.plan(now, 1) {
            let first = remaining.iter().map(|&tokens| due(tokens)).min().unwrap();
            prop_assert!(batch.iter().map(|planned| planned.job.tokens).any(|tokens| due(tokens) == first));
            for planned in batch {
                let at = remaining.iter().position(|&tokens| tokens == planned.job.tokens).unwrap();
                remaining.swap_remove(at);
            }
        }
        prop_assert!(remaining.is_empty());
    }
}

#[test]
fn similar_lengths_share_a_batch_and_long_ones_run_alone() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy { budget: 128, overhead: 10, ..Policy::default() });
    for tokens in [30, 500, 31, 120, 32, 29] {
        planner.push(waiting(tokens), now);
    }
    let batches: Vec<_> = std::iter::from_fn(|| planner.plan(now, 1)).map(|batch| lengths(&batch)).collect();
    assert_eq!(batches, [vec![29, 30, 31, 32], vec![120], vec![500]]);
}

#[test]
fn what_waits_is_shared_between_free_workers() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy::default());
    for _ in 0..4 {
        planner.push(waiting(30), now);
    }
    assert_eq!(lengths(&planner.plan(now, 2).unwrap()), [30, 30]);
    assert_eq!(lengths(&planner.plan(now, 1).unwrap()), [30, 30]);
}

#[test]
fn a_short_job_does_not_wait_behind_a_flood_of_long_ones() {
    let start = Instant::now();
    let mut planner = Planner::new(Policy::default());
    for _ in 0..100 {
        planner.push(waiting(512), start);
    }
    let later = start + Duration::from_secs(3);
    planner.push(waiting(20), later);
    assert_eq!(lengths(&planner.plan(later, 1).unwrap()), [20]);
}

#[test]
fn a_request_of_many_samples_lets_a_short_one_go_first() {
    let start = Instant::now();
    let mut planner = Planner::new(Policy { max_batch: 1, ..Policy::default() });
    let many: Vec<JobId> =
        (1..=20).map(|count| planner.push(WaitingJob { request_tokens: 30 * count, ..waiting(30) }, start)).collect();
    let later = start + Duration::from_secs(2);
    let short = planner.push(waiting(30), later);
    let order: Vec<JobId> = std::iter::from_fn(|| planner.plan(later, 1)).map(|batch| batch[0].id).collect();
    assert_eq!(order.iter().position(|id| *id == short), Some(4), "those that were due before it");
    assert_eq!(order.into_iter().filter(|id| *id != short).collect::<Vec<_>>(), many);
}

#[test]
fn what_may_not_wait_long_is_overtaken_for_half_of_that_only() {
    let start = Instant::now();
    let mut planner = Planner::new(Policy { max_batch: 1, ..Policy::default() });
    let long = planner.push(WaitingJob { bound: Some(Duration::from_secs(2)), ..waiting(512) }, start);
    let early = planner.push(waiting(1), start + Duration::from_millis(900));
    let late = planner.push(waiting(1), start + Duration::from_millis(1100));
    let order: Vec<_> = std::iter::from_fn(|| planner.plan(start, 1)).map(|batch| batch[0].id).collect();
    assert_eq!(order, [early, long, late]);
}

#[test]
fn priorities_go_first_but_not_for_ever() {
    let start = Instant::now();
    let mut planner = Planner::new(Policy { max_batch: 1, ..Policy::default() });
    let mut push = |priority, after| {
        let job = WaitingJob { priority, ..waiting(50) };
        planner.push(job, start + Duration::from_secs(after))
    };
    let low = push(Priority::Low, 0);
    let normal = push(Priority::Normal, 1);
    let high = push(Priority::High, 2);
    let much_later = push(Priority::High, 120);
    let order: Vec<_> = std::iter::from_fn(|| planner.plan(start, 1)).map(|batch| batch[0].id).collect();
    assert_eq!(order, [high, normal, low, much_later]);
}

#[test]
fn what_goes_before_a_job_is_counted() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy::default());
    for tokens in [10, 100, 400] {
        planner.push(waiting(tokens), now);
    }
    assert_eq!(planner.tokens_before(ClientId::default(), 50, Priority::Normal, Duration::MAX, now), 10);
    assert_eq!(planner.tokens_before(ClientId::default(), 500, Priority::Normal, Duration::MAX, now), 510);
    assert_eq!(planner.tokens_before(ClientId::default(), 500, Priority::High, Duration::MAX, now), 0);
}

#[test]
fn a_long_job_that_is_wanted_soon_is_overtaken_for_half_of_its_time_only() {
    let start = Instant::now();
    let mut planner = Planner::new(Policy { max_batch: 1, ..Policy::default() });
    let deadline = Some(start + Duration::from_secs(4));
    let long = planner.push(WaitingJob { deadline, ..waiting(512) }, start);
    let early = planner.push(waiting(20), start + Duration::from_secs(1));
    let late = planner.push(waiting(20), start + Duration::from_secs(3));
    let order: Vec<_> = std::iter::from_fn(|| planner.plan(start, 1)).map(|batch| batch[0].id).collect();
    assert_eq!(order, [early, long, late]);
}

#[test]
fn jobs_that_begin_alike_run_together_and_nobody_starves() {
    let grouping = Grouping::Beginning { abreast: NonZeroUsize::MIN };
    let policy = Policy { grouping, budget: 680, max_batch: 64, window: 64, ..Policy::default() };
    let mut planner: Planner<Vec<u32>> = Planner::new(policy).with_texts(Vec::as_slice);
    let now = Instant::now();
    let mut push = |prompt: u32, own: u32, after: u64| {
        let text = [vec![prompt; 300], vec![own; 20]].concat();
        let job = WaitingJob::new(text.len(), text);
        planner.push(job, now + Duration::from_millis(after))
    };
    let single = push(1, 100, 0);
    let parallel: Vec<JobId> = (0..40).map(|own| push(2, 200 + own, 1 + u64::from(own))).collect();
    let ids = |batch: Option<Vec<Planned<Vec<u32>>>>| -> Vec<JobId> {
        batch.unwrap().into_iter().map(|planned| planned.id).collect()
    };
    assert_eq!(ids(planner.plan(now, 1)), [single], "it is due first, and nobody shares its prompt");
    assert_eq!(ids(planner.plan(now, 1)), parallel[..35], "34 times 20 tokens join the first");
    assert_eq!(ids(planner.plan(now, 1)), parallel[35..]);
    assert!(planner.is_empty() && planner.tokens() == 0);
}

#[test]
fn where_nothing_may_be_padded_only_equal_lengths_run_together() {
    let policy = Policy { grouping: Grouping::EqualLength, overhead: 100, ..Policy::default() };
    let mut planner = Planner::new(policy);
    let now = Instant::now();
    for tokens in [9, 8, 9, 10, 8, 9] {
        planner.push(waiting(tokens), now);
    }
    let batches = std::iter::from_fn(|| planner.plan(now, 1));
    let lengths: Vec<Vec<usize>> =
        batches.map(|batch| batch.iter().map(|planned| planned.job.tokens).collect()).collect();
    assert_eq!(lengths, [vec![8, 8], vec![9, 9, 9], vec![10]]);
}
