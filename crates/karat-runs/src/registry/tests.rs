//! Which runs stay, whose they are, and who hears of them.

use super::*;
use crate::{
    run::{Origin, Request, RequestKey},
    statistics::{Gathered, testing::observation},
};

fn name(run: &str) -> RunName {
    run.parse().unwrap()
}

fn origin(step: u64) -> Origin {
    Origin { step: Some(step), task: None, model: "m".parse().unwrap(), probabilities: false }
}

fn add_to(runs: &Runs, run: &ClaimedRun, step: u64, now: u64) {
    let gathered = Gathered::of(&[observation(1.0); 4], &[]);
    let (origin, requests) = (&origin(step), &[(Request::whole(RequestKey::of("r")), 4)][..]);
    runs.add(run, std::iter::once(Batch { origin, requests, samples: gathered.samples() }), now);
}

/// Adds to a run that is made for everybody where there is none.
fn add(runs: &Runs, run: &str, step: u64, now: u64) {
    add_to(runs, &runs.claim(&name(run), None, || now).run, step, now);
}

#[test]
fn a_thousand_runs_stay_and_the_oldest_goes() {
    let runs = Runs::new(Bounds { runs: 1000, bytes: usize::MAX });
    for number in 0..1200 {
        add(&runs, &format!("run-{number}"), 0, 1);
        add(&runs, "kept", 0, 1);
    }
    assert_eq!(runs.size().0, 1000);
    let list = runs.list(|_| true);
    assert_eq!(list[0].run.as_str(), "kept");
    assert!(runs.report(&"run-0".parse().unwrap()).is_none());
    assert_eq!(runs.totals(), (1200 * 8, 201));
    let (changed, gone) = runs.changes();
    assert_eq!((changed.len(), gone.len()), (1000, 201));
    assert_eq!(runs.changes().0.len(), 0);
}

#[test]
fn memory_is_bounded_and_reckoned() {
    let runs = Runs::new(Bounds { runs: 1000, bytes: 2 << 20 });
    for number in 0..100 {
        for step in 0..4 {
            add(&runs, &format!("run-{number}"), step, 1);
        }
    }
    let (count, bytes) = runs.size();
    assert!(bytes <= 2 << 20 && count > 1 && count < 100, "{count} runs of {bytes} bytes");
    while let Some(summary) = runs.list(|_| true).pop() {
        runs.forget(&summary.run);
    }
    assert_eq!(runs.size(), (0, 0));
}

#[test]
fn a_run_is_the_keys_that_made_it_until_it_is_forgotten() {
    let runs = Runs::new(Bounds { runs: 10, bytes: usize::MAX });
    let name: RunName = "a".parse().unwrap();
    assert_eq!(runs.owner(&name), None);
    let claim = |owner| runs.claim(&name, owner, || 1);
    let told = |owner| {
        let claim = claim(owner);
        (claim.run.owner().map(str::to_owned), claim.is_new)
    };
    let of = |owner: &str, is_new| (Some(owner.to_owned()), is_new);
    assert_eq!(
        (told(Some("one")), told(Some("other")), told(None)),
        (of("one", true), of("one", false), of("one", false))
    );
    add(&runs, "a", 0, 1);
    add(&runs, "everybodys", 0, 1);
    let shown = |key: &str| runs.list(|owner| owner.is_none_or(|owner| owner == key)).len();
    assert_eq!((shown("one"), shown("other")), (2, 1));
    let ones = claim(Some("one")).run;
    runs.forget(&name);
    // What was still on its way doesn't make the run anew, as one of everybody.
    add_to(&runs, &ones, 0, 2);
    runs.add_unjudged(&name, 1);
    runs.add_outcomes(&name, &[], 1, 2);
    assert_eq!(runs.owner(&name), None);
    assert_eq!(told(Some("other")), of("other", true));
    add_to(&runs, &ones, 0, 2);
    assert_eq!(runs.report(&name).unwrap().samples, 0, "and goes to no other key's run of the same name");
}

#[test]
fn listeners_hear_of_steps() {
    let runs = Runs::new(Bounds { runs: 10, bytes: usize::MAX });
    let name: RunName = "a".parse().unwrap();
    assert!(runs.listen(&name, 0).is_none());
    add(&runs, "a", 0, 1);
    let (past, mut future) = runs.listen(&name, 0).unwrap();
    assert!(past.is_empty() && future.try_recv().is_err());
    add(&runs, "a", 1, 2);
    let event = future.try_recv().unwrap();
    assert_eq!((event.kind.word(), event.at), ("step", 2));
}

#[test]
fn a_reference_must_have_rewards() {
    let runs = Runs::new(Bounds { runs: 10, bytes: usize::MAX });
    let name: RunName = "a".parse().unwrap();
    let config = Config { reference: Some("b".parse().unwrap()), ..Config::default() };
    assert!(matches!(runs.configure(&name, config.clone(), None, 1), Err(ConfigError::NoReference(_))));
    add(&runs, "b", 0, 1);
    runs.configure(&name, config, None, 1).unwrap();
    assert!(runs.report(&name).unwrap().models[0].registered);
}

#[test]
fn a_run_that_was_let_go_is_claimed_anew_on_every_thread() {
    let runs = Runs::new(Bounds { runs: 2, bytes: usize::MAX });
    let (a, b) = (name("a"), name("b"));
    // Claims on another thread, which stays the same one, for a key; whether that made the run.
    let (ask, asked) = std::sync::mpsc::channel::<&str>();
    let (answer, answered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (runs, a) = (&runs, &a);
        scope.spawn(move || {
            for key in asked {
                let claim = runs.claim(a, Some(key), || 1);
                answer.send((claim.run.owner() == Some(key), claim.is_new)).unwrap();
            }
        });
        let claim = |key| {
            ask.send(key).unwrap();
            answered.recv().unwrap()
        };
        assert_eq!(claim("one"), (true, true));
        assert_eq!(claim("two"), (false, false), "it is the first one's");
        assert!(runs.forget(a));
        assert_eq!(claim("two"), (true, true));
        // Two others take the room of all.
        add(runs, "b", 0, 1);
        add(runs, "c", 0, 1);
        assert_eq!(claim("three"), (true, true));
        runs.restore(Run::new(a.clone(), 1).of(Some("four".to_owned())));
        assert_eq!(claim("four"), (true, false));
        drop(ask);
    });
    assert!(runs.owner(&b).is_none(), "the last claim took its room");
}
