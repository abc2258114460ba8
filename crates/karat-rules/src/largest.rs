//! Every rule and metric at the largest inputs that a server takes.
//!
//! A rule whose work grows with the square of a body's length would not come to an end here: nothing is timed.

use serde_json::Value;

use crate::{
    aggregate::{self, Members},
    domain::{Reward, catalogue::Choice},
    metrics, select,
    select::Candidates,
    transform::{self, Available, Chain, Context, Signal},
};

/// As many inputs as a request may hold by default.
const INPUTS: usize = 4096;
/// About as many numbers as a body of the default size holds in each of two lists.
const NUMBERS: usize = 200_000;

/// A value whose longest lists, on the way to its leaves, are repeated until they are that long.
fn enlarged(value: &Value, length: usize) -> Value {
    match value {
        Value::Array(list) if list.len() > 1 => list.iter().cycle().take(length).cloned().collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), enlarged(value, length))).collect(),
        other => other.clone(),
    }
}

#[test]
fn metrics_come_to_an_end() {
    let mut computed = 0;
    for entry in metrics::CATALOGUE.entries {
        for example in entry.example_values() {
            // What an enlarged example refuses, such as groups of two, is as large as it can be.
            let Ok(metric) = (entry.build)(enlarged(&example, NUMBERS)) else { continue };
            metric.compute().ok();
            computed += 1;
        }
    }
    assert!(computed >= 8, "{computed} examples can be enlarged");
}

fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|index| f64::from(u32::try_from(index * 7919 % 1009).unwrap()) / 100.0).collect()
}

fn rewards() -> Vec<Reward> {
    numbers(INPUTS).into_iter().map(|number| Reward::new(number).unwrap()).collect()
}

#[test]
fn selection_rules_come_to_an_end() {
    let texts: Vec<String> = (0..INPUTS).map(|index| format!("candidate {} of many", index % 97)).collect();
    let vectors = numbers(INPUTS).into_iter().map(|number| vec![number, 1.0, -number]).collect();
    let objectives = numbers(INPUTS).into_iter().map(|number| vec![number, 10.0 - number, 1.0]).collect();
    let candidates = Candidates::new(&rewards()).unwrap().with_answers(texts.clone()).unwrap();
    let candidates = candidates.with_texts(texts).unwrap().with_embeddings(vectors).unwrap();
    let candidates = candidates.with_objectives(objectives).unwrap();
    for (entry, rule) in select::CATALOGUE.each_example() {
        let selected = rule.select(&candidates);
        assert!(selected.is_ok(), "{}: {selected:?}", entry.name);
    }
    assert!(select::best_of_n_curve(candidates.rewards(), None).is_some_and(|curve| !curve.is_empty()));
}

#[test]
fn aggregations_come_to_an_end() {
    let group: Vec<Members> = rewards().iter().map(|reward| Members::new(&[*reward; 5]).unwrap()).collect();
    let mut aggregated = 0;
    for (_, rule) in aggregate::CATALOGUE.each_example() {
        aggregated += usize::from(rule.aggregate_group(&group).is_ok_and(|rewards| rewards.len() == INPUTS));
    }
    assert!(aggregated >= 8, "{aggregated} aggregations take a plain ensemble of five");
}

#[test]
fn transforms_come_to_an_end() {
    let context = Context::default().with_references(numbers(NUMBERS)).unwrap();
    let context = context.with_counts(&vec![2; INPUTS]).unwrap().with_margins(numbers(INPUTS)).unwrap();
    let context = context.with_successes(vec![true; INPUTS]);
    let mut applied = 0;
    for entry in transform::CATALOGUE.entries {
        for example in entry.example_values() {
            for steps in [false, true] {
                let choice = Choice { name: entry.name.to_owned(), parameters: example.clone() };
                let available = Available { group: INPUTS, ..context.available(steps, INPUTS) };
                let Ok(chain) = Chain::build_for(&[choice], &available) else { continue };
                let signal = |number| if steps { Signal::Steps(vec![number; 64]) } else { Signal::Outcome(number) };
                let mut signals: Vec<Signal> = numbers(INPUTS).into_iter().map(signal).collect();
                applied += usize::from(chain.apply_with(&mut signals, &context).is_ok());
            }
        }
    }
    assert!(applied >= 10, "{applied} transforms were applied");
}
