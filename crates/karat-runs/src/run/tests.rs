//! What a run makes of its samples, and in how much memory.

use super::*;
use crate::statistics::{Gathered, Observation, testing::observation};

fn name(text: &str) -> RunName {
    text.parse().unwrap()
}

/// Samples whose reward rises with the step while what a judge thinks of them falls.
fn samples(step: u64, count: u64) -> Vec<Observation> {
    let samples = (0..count).map(|number| {
        let mut sample = observation(step as f64 * 0.1 + (number % 17) as f64);
        sample.hash = step * 1000 + number;
        sample
    });
    samples.collect()
}

fn origin(model: &str, step: u64) -> Origin {
    Origin {
        step: Some(step),
        task: Some(format!("task-{}", step % 40).parse().unwrap()),
        model: model.parse().unwrap(),
        probabilities: false,
    }
}

/// Takes the samples of one request in, whose id is the model's name and the step.
fn add(run: &mut Run, model: &str, step: u64, samples: &[Observation], members: &[f32]) -> Vec<Event> {
    let request = Request::whole(RequestKey::of(&format!("{model}-{step}")));
    let gathered = Gathered::of(samples, members);
    let (origin, requests) = (&origin(model, step), &[(request, samples.len())][..]);
    run.add(&Batch { origin, requests, samples: gathered.samples() }, true, 2)
}

#[test]
fn a_second_judge_that_does_not_follow_is_told_once_with_its_evidence() {
    let mut run = Run::new(name("a"), 1);
    let mut happened = Vec::new();
    for step in 0..200 {
        happened.extend(add(&mut run, "m", step, &samples(step, 32), &[]));
        for index in 0..16 {
            let matched = run.find(&format!("m-{step}"), index).unwrap();
            run.add_beside(Beside::Judge, &matched, (index % 17) as f64 - step as f64 * 0.01, 2);
        }
    }
    let fired: Vec<&Event> = happened
        .iter()
        .filter(|event| matches!(&event.kind, EventKind::Signal { signal, .. } if signal == "judge_parts"))
        .collect();
    let [Event { kind: EventKind::Signal { firing: true, step, reading, .. }, .. }] = fired[..] else {
        panic!("{fired:?}")
    };
    assert!(*step > 8 && *step < 100 && reading.samples >= 64, "{reading:?}");
    let told = run.report();
    let signal = told.models[0].signals.iter().find(|signal| signal.signal == "judge_parts").unwrap();
    assert_eq!((signal.firing, signal.since_step), (true, Some(*step)));
    assert!(run.summary().firing.contains(&"judge_parts".to_owned()));
}

#[test]
fn a_run_takes_less_than_a_mebibyte_whatever_is_sent() {
    let mut run = Run::new(name("a"), 1);
    for step in 0..3000_u64 {
        for model in ["m", "n", "o"] {
            let members: Vec<f32> = (0..48 * 20).map(|score| score as f32).collect();
            add(&mut run, model, step, &samples(step, 48), &members);
            let matched = Matched { model: model.parse().unwrap(), step, reward: 1.0 };
            for what in [Beside::Judge, Beside::Outcome, Beside::Sensitivity] {
                run.add_beside(what, &matched, 0.5, 2);
            }
        }
    }
    for step in 0..3000_u64 {
        for model in ["m", "n"] {
            add(&mut run, model, step, &samples(step, 48), &[]);
        }
    }
    assert!(run.bytes() < 1 << 20, "{}", run.bytes());
    let written = serde_json::to_string(&run).unwrap();
    let read: Run = serde_json::from_str(&written).unwrap();
    assert_eq!(read.summary(), run.summary());
    assert_eq!(read.find("m-2999", 47), run.find("m-2999", 47));
}

#[test]
fn a_table_has_a_line_a_step_and_as_many_columns_in_each() {
    let mut run = Run::new(name("a"), 1);
    for step in 0..3 {
        add(&mut run, "m", step, &samples(step, 1), &[]);
    }
    let table = run.report().to_csv();
    let columns: Vec<usize> = table.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [24; 4], "{table}");
}

/// Requests of three steps, of which the first and the last come in turns at the end; some of them with two members.
fn requests(named: bool) -> Vec<(Origin, Request, Vec<Observation>, Vec<f32>)> {
    let steps = (0..600).map(|request: u64| if request < 540 { request / 180 } else { request / 4 % 2 * 2 });
    let requests = steps.zip(0_u64..).map(|(step, number)| {
        let mut origin = origin("m", step);
        origin.step = named.then_some(step);
        let mut request = Request::whole(RequestKey::of(&number.to_string()));
        let mut samples = samples(step, number % 7);
        let mut members = Vec::new();
        if number / 20 % 3 == 0 {
            samples.iter_mut().for_each(|sample| sample.worst_case -= 1.0);
            members = samples.iter().flat_map(|sample| [sample.worst_case as f32, sample.reward as f32]).collect();
        }
        if number % 5 == 0 {
            request.unscored = 2;
            request.places = Some((0..samples.len()).map(|place| place * 2).collect());
        }
        (origin, request, samples, members)
    });
    requests.collect()
}

#[test]
fn requests_that_waited_together_are_as_those_that_came_alone() {
    for named in [true, false] {
        let (mut alone, mut together) = (Run::new(name("a"), 1), Run::new(name("a"), 1));
        let requests = requests(named);
        let mut happened = [Vec::new(), Vec::new()];
        for (origin, request, samples, members) in &requests {
            let (gathered, requests) = (Gathered::of(samples, members), &[(request.clone(), samples.len())]);
            let batch = Batch { origin, requests, samples: gathered.samples() };
            happened[0].extend(alone.add(&batch, true, 2));
        }
        for neighbours in requests.chunk_by(|one, next| one.0 == next.0 && one.3.is_empty() == next.3.is_empty()) {
            let each = neighbours.iter().map(|(_, request, samples, _)| (request.clone(), samples.len()));
            let (samples, members): (Vec<_>, Vec<_>) = neighbours.iter().map(|(_, _, s, m)| (&s[..], &m[..])).unzip();
            let (gathered, requests) = (Gathered::of(&samples.concat(), &members.concat()), each.collect::<Vec<_>>());
            let batch = Batch { origin: &neighbours[0].0, requests: &requests, samples: gathered.samples() };
            happened[1].extend(together.add(&batch, true, 2));
        }
        let told = |run: &Run| {
            let report = run.report();
            let step = |step: &StepReport| (step.first_step, step.samples, step.unscored, step.minimum, step.maximum);
            (run.summary(), report.models[0].steps.iter().map(step).collect::<Vec<_>>())
        };
        assert_eq!(told(&together), told(&alone));
        for number in 0..requests.len() {
            for index in 0..14 {
                let id = number.to_string();
                assert_eq!(together.find(&id, index), alone.find(&id, index));
            }
        }
        let kinds = |events: &[Event]| events.iter().map(|event| (event.id, event.kind.word())).collect::<Vec<_>>();
        assert_eq!(kinds(&happened[1]), kinds(&happened[0]));
        assert!(happened[0].len() >= 2);
    }
}
