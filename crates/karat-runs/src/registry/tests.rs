//! Which runs stay, whose they are, and who hears of them.

use super::*;
use crate::statistics::testing::observation;

fn batch(run: &str, step: u64) -> Batch {
    Batch {
        run: run.parse().unwrap(),
        step: Some(step),
        task: None,
        model: "m".parse().unwrap(),
        probabilities: false,
        request: "r".to_owned(),
        samples: vec![observation(1.0); 4],
        places: None,
        members: Vec::new(),
    }
}

/// Adds to a run that is made for everybody where there is none.
fn add(runs: &Runs, batch: &Batch, now: u64) {
    runs.claim(&batch.run, None, now);
    runs.add(batch, now);
}

#[test]
fn a_thousand_runs_stay_and_the_oldest_goes() {
    let runs = Runs::new(Bounds { runs: 1000, bytes: usize::MAX });
    for number in 0..1200 {
        add(&runs, &batch(&format!("run-{number}"), 0), 1);
        add(&runs, &batch("kept", 0), 1);
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
            add(&runs, &batch(&format!("run-{number}"), step), 1);
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
    let claim = |owner| runs.claim(&name, owner, 1);
    let of = |owner: &str, is_new| Claim { owner: Some(owner.to_owned()), is_new };
    assert_eq!(
        (claim(Some("one")), claim(Some("other")), claim(None)),
        (of("one", true), of("one", false), of("one", false))
    );
    add(&runs, &batch("a", 0), 1);
    add(&runs, &batch("everybodys", 0), 1);
    let shown = |key: &str| runs.list(|owner| owner.is_none_or(|owner| owner == key)).len();
    assert_eq!((shown("one"), shown("other")), (2, 1));
    runs.forget(&name);
    // What was still on its way doesn't make the run anew, as one of everybody.
    runs.add(&batch("a", 0), 2);
    runs.add_unscored(&name, &"m".parse().unwrap(), None, 1, 2);
    runs.add_unjudged(&name, 1);
    runs.add_outcomes(&name, &[], 1, 2);
    assert_eq!(runs.owner(&name), None);
    assert_eq!(claim(Some("other")), of("other", true));
}

#[test]
fn listeners_hear_of_steps() {
    let runs = Runs::new(Bounds { runs: 10, bytes: usize::MAX });
    let name: RunName = "a".parse().unwrap();
    assert!(runs.listen(&name, 0).is_none());
    add(&runs, &batch("a", 0), 1);
    let (past, mut future) = runs.listen(&name, 0).unwrap();
    assert!(past.is_empty() && future.try_recv().is_err());
    add(&runs, &batch("a", 1), 2);
    let event = future.try_recv().unwrap();
    assert_eq!((event.kind.word(), event.at), ("step", 2));
}

#[test]
fn a_reference_must_have_rewards() {
    let runs = Runs::new(Bounds { runs: 10, bytes: usize::MAX });
    let name: RunName = "a".parse().unwrap();
    let config = Config { reference: Some("b".parse().unwrap()), ..Config::default() };
    assert!(matches!(runs.configure(&name, config.clone(), None, 1), Err(ConfigError::NoReference(_))));
    add(&runs, &batch("b", 0), 1);
    runs.configure(&name, config, None, 1).unwrap();
    assert!(runs.report(&name).unwrap().models[0].registered);
}
