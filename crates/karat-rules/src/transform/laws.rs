//! The laws that every transform declares, run over every entry of the list with each of its examples.

use proptest::prelude::*;

use super::{CATALOGUE, Context, Signal, Stage, Transform};
use crate::domain::catalogue::Law;

/// Everything that any transform may need, for `count` samples; `references` is 1 for the canned response.
fn context(count: usize, references: usize) -> Context {
    Context::default()
        .with_references((0..references).map(|index| index as f64 - 0.5).collect())
        .and_then(|context| context.with_counts(&vec![3; count]))
        .and_then(|context| context.with_margins(vec![0.7; count]))
        .unwrap()
        .with_successes(vec![true; count])
}

/// The transform of a group of outcomes, or of one list of steps; `None` when it can't act on them or refuses.
fn transformed(rule: &dyn Transform, mut group: Vec<Signal>) -> Option<Vec<Signal>> {
    let stage = if matches!(group[0], Signal::Steps(_)) { Stage::StepScores } else { Stage::Outcome };
    rule.stage(stage).ok()?;
    let context = [1, 5]
        .into_iter()
        .map(|references| context(group.len(), references))
        .find(|context| context.available(true, group.len()).lacks(rule.needs()).is_none())?;
    rule.apply(&mut group, &context).ok()?;
    Some(group)
}

fn outcomes(values: &[f64]) -> Vec<Signal> {
    values.iter().copied().map(Signal::Outcome).collect()
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![Just(0.0..1.0), Just(-30.0..30.0), Just(-1e6..1e6)]
        .prop_flat_map(|range| prop::collection::vec(range, 1..40))
}

proptest! {
    #[test]
    fn declared_laws_hold(values in values(), turn in 0..40_usize) {
        let scale = 1.0 + values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        for (entry, rule) in CATALOGUE.each_example() {
            let name = entry.name;
            let group = transformed(&*rule, outcomes(&values));
            let steps = transformed(&*rule, vec![Signal::Steps(values.clone())]);
            for signal in group.iter().chain(&steps).flatten() {
                prop_assert!(signal.numbers().iter().all(|number| number.is_finite()), "{name}");
            }
            let totals: Vec<f64> = group.iter().flatten().map(Signal::total).collect();
            let sum = steps.as_ref().map(|steps| steps[0].total());
            if rule.gives_probabilities(values.iter().all(|value| (0.0..=1.0).contains(value))) {
                let lie = totals.iter().all(|total| (0.0..=1.0).contains(total));
                prop_assert!(lie, "{name}: {totals:?} are said to be probabilities");
            }
            let always = !entry.laws.contains(&Law::Probability) || rule.gives_probabilities(false);
            prop_assert!(always, "{name} declares probabilities and doesn't say that it gives them");
            for law in entry.laws {
                match law {
                    Law::KeepsOrder => {
                        for (a, image_a) in values.iter().zip(&totals) {
                            for (b, image_b) in values.iter().zip(&totals) {
                                prop_assert!(a > b || image_a <= image_b || (image_a - image_b).abs() < 1e-12 * scale,
                                    "{name}: {a} <= {b} but {image_a} > {image_b}");
                            }
                        }
                    }
                    Law::PermutationInvariant => {
                        let mut turned = values.clone();
                        turned.rotate_left(turn % values.len());
                        // A fresh rule: what one has learnt must not meet the other.
                        if let Some(again) = transformed(&*rule, outcomes(&turned)) {
                            let mut again: Vec<f64> = again.iter().map(Signal::total).collect();
                            again.rotate_right(turn % values.len());
                            for (a, b) in totals.iter().zip(&again) {
                                prop_assert!((a - b).abs() <= 1e-9 * scale, "{name}: {a} {b}");
                            }
                        }
                    }
                    Law::Bounded => prop_assert!(totals.iter().all(|t| (-1.0..=1.0).contains(t)), "{name}: {totals:?}"),
                    Law::Probability => prop_assert!(totals.iter().all(|t| (0.0..=1.0).contains(t)), "{name}: {totals:?}"),
                    Law::SumsToZero => {
                        prop_assert!(totals.iter().sum::<f64>().abs() < 1e-9 * scale, "{name}: {totals:?}");
                    }
                    Law::StepsSumToAtMostZero => {
                        prop_assert!(sum.is_none_or(|sum| sum <= 1e-9 * scale), "{name}: {sum:?}");
                    }
                    Law::StepsSumToTheFirst => {
                        let first = values[0];
                        let holds = |sum: f64| values.len() < 2 || (sum - first).abs() < 1e-9 * scale;
                        prop_assert!(sum.is_none_or(holds), "{name}: {sum:?} is not {first}");
                    }
                    other => prop_assert!(false, "{name} declares {other:?}, which is no law of transforms"),
                }
            }
        }
    }
}

#[test]
fn every_example_applies_to_something() {
    for (entry, rule) in CATALOGUE.each_example() {
        let applied = transformed(&*rule, outcomes(&[0.2, 0.4, 0.9])).is_some()
            || transformed(&*rule, vec![Signal::Steps(vec![0.2, 0.4, 0.9])]).is_some();
        assert!(applied, "{} never applied", entry.name);
    }
}

#[test]
fn extreme_rewards_are_finite_or_refused_by_the_chain() {
    let extremes = [
        vec![1e30, -1e30],
        vec![f64::MIN_POSITIVE / 2.0; 2],
        vec![f64::MAX, f64::MIN],
        vec![0.0],
        vec![0.25; 5],
        vec![0.9; 10_000],
    ];
    for entry in CATALOGUE.entries {
        for example in entry.example_values() {
            let choice = serde_json::json!([{ entry.name: example }]).to_string();
            for values in &extremes {
                for steps in [false, true] {
                    let mut group = if steps { vec![Signal::Steps(values.clone())] } else { outcomes(values) };
                    let context = context(group.len(), 5);
                    let available = context.available(steps, group.len());
                    let Ok(chain) = super::Chain::build_for(&super::testing::choices(&choice), &available) else {
                        continue;
                    };
                    if chain.apply_with(&mut group, &context).is_ok() {
                        assert!(group.iter().flat_map(Signal::numbers).all(|number| number.is_finite()), "{choice}");
                    }
                }
            }
        }
    }
}
