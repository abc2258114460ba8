//! Turns between clients.

use super::*;

proptest! {
    /// However much others let wait, each is given no more before a client's job than that client is itself, but for the batch
    /// by which turns are counted.
    #[test]
    fn a_backlog_of_one_client_is_no_backlog_of_another(
        policy in policy(), backlogs in vec(vec(1..600_usize, 1..60), 1..4), own in vec(1..600_usize, 1..5)
    ) {
        let now = Instant::now();
        let mut planner = Planner::new(policy);
        let of = |client: usize, tokens: usize| WaitingJob { client: ClientId::of(&client), ..waiting(tokens) };
        for (client, backlog) in backlogs.iter().enumerate() {
            for &tokens in backlog {
                planner.push(of(client, tokens), now);
            }
        }
        let us = ClientId::of(&"us");
        for &tokens in &own {
            planner.push(WaitingJob { client: us, ..waiting(tokens) }, now);
        }
        let all = own.iter().sum::<usize>();
        let batch = policy.budget.max(600);
        let bound = planner.tokens_ahead(us, all);
        prop_assert!(bound <= all + backlogs.len() * (2 * all));
        let (mut left, mut given) = (own.len(), 0);
        while left > 0 {
            let jobs = planner.plan(now, 1).unwrap();
            given += jobs.iter().map(|planned| planned.job.tokens).sum::<usize>();
            left -= jobs.iter().filter(|planned| planned.job.client == us).count();
        }
        prop_assert!(given <= bound + (backlogs.len() + 1) * batch, "{given} tokens for {all}, where {bound} were expected");
    }
}

#[test]
fn who_comes_back_at_once_takes_turns_with_those_that_wait() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy { max_batch: 1, ..Policy::default() });
    let of = |name: &str| WaitingJob { client: ClientId::of(&name), ..waiting(100) };
    for _ in 0..20 {
        planner.push(of("waits"), now);
    }
    let back = ClientId::of(&"comes back");
    let mut turns = 0;
    planner.push(of("comes back"), now);
    for _ in 0..20 {
        if planner.plan(now, 1).unwrap()[0].job.client == back {
            turns += 1;
            planner.push(of("comes back"), now);
        }
    }
    assert!((9..=11).contains(&turns), "{turns} of 20");
}

#[test]
fn passes_are_brief_while_several_clients_are_served() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy { budget: 512, overhead: 6, ..Policy::default() });
    let of = |name: &str| WaitingJob { client: ClientId::of(&name), ..waiting(60) };
    for _ in 0..300 {
        planner.push(of("large"), now);
    }
    assert_eq!(lengths(&planner.plan(now, 1).unwrap()), [60; 8]);
    planner.push(of("small"), now);
    assert_eq!(lengths(&planner.plan(now, 1).unwrap()), [60; 3], "beyond 192 positions a pass saves a thirty-second");
    assert_eq!(lengths(&planner.plan(now, 1).unwrap()), [60; 3]);
    let batches: Vec<usize> = std::iter::from_fn(|| planner.plan(now, 1)).map(|batch| batch.len()).collect();
    assert!(batches.contains(&8), "nobody else came any more: {batches:?}");
}

#[test]
fn of_each_other_client_as_much_goes_before_a_job_as_is_given_to_its_own() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy::default());
    for client in 0..10 {
        for _ in 0..40 {
            planner.push(WaitingJob { client: ClientId::of(&client), ..waiting(500) }, now);
        }
    }
    let newcomer = ClientId::of(&"newcomer");
    let before = planner.tokens_before(newcomer, 600, Priority::Normal, Duration::from_secs(4), now);
    assert_eq!(before, 10 * 600, "though all of theirs are due later");
    assert_eq!(planner.tokens_ahead(newcomer, 600), 10 * 600);
    // Of a bound that all share, each has its part.
    assert!(planner.is_within_share(newcomer, 600, 11 * 600));
    assert!(!planner.is_within_share(newcomer, 600, 11 * 600 - 1));
    assert!(!planner.is_within_share(ClientId::of(&0), 1, 100_000));
}

#[test]
fn clients_that_come_once_are_forgotten() {
    let now = Instant::now();
    let mut planner = Planner::new(Policy::default());
    for client in 0..1000 {
        planner.push(WaitingJob { client: ClientId::of(&client), ..waiting(50) }, now);
        planner.plan(now, 1).unwrap();
        assert_eq!(planner.turns.clients(), 0, "nothing waits");
    }
    // One that always waits is served in its turn among a thousand that come once.
    let stays = ClientId::of(&"stays");
    let mut served = 0;
    planner.push(WaitingJob { client: stays, ..waiting(500) }, now);
    for client in 0..1000 {
        planner.push(WaitingJob { client: ClientId::of(&client), ..waiting(50) }, now);
        for planned in planner.plan(now, 1).unwrap() {
            if planned.job.client == stays {
                served += 1;
                planner.push(WaitingJob { client: stays, ..waiting(500) }, now);
            }
        }
    }
    assert!(served >= 1000 / 25, "{served}");
    assert!(planner.turns.clients() < 500, "{}", planner.turns.clients());
}
