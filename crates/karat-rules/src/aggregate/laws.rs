//! The laws that every aggregation declares, run over every entry of the list with each of its examples.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Aggregation, CATALOGUE, Members, testing::members};
use crate::domain::{Reward, catalogue::Law};

/// The score of each of two candidates, so that rules that compare candidates are covered too; `None` when refused.
fn scores(rule: &dyn Aggregation, first: &Members, second: &Members) -> Option<[f64; 2]> {
    let alone = rule.check(&first.shape(1)).is_ok();
    let group = if alone {
        rule.aggregate(first).and_then(|one| Ok([one, rule.aggregate(second)?]))
    } else {
        rule.check(&first.shape(2)).ok()?;
        rule.aggregate_group(&[first.clone(), second.clone()]).map(|group| [group[0], group[1]])
    };
    group.ok().map(|pair| pair.map(Reward::get))
}

fn dressed(values: &[f64], named: bool) -> Members {
    let deviations = (0..values.len()).map(|index| 0.5 + index as f64).collect();
    let members = members(values).with_deviations(deviations).unwrap();
    let names: Arc<[String]> = Arc::from(["helpful".to_owned(), "harmless".to_owned()]);
    match members.clone().with_objectives(names) {
        Some(objectives) if named => objectives,
        _ => members,
    }
}

fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + scale)
}

/// Members on the scales that rules are made for: cosines, probabilities and raw logits.
fn values() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    (1..9_usize, prop_oneof![Just(-1.0..1.0), Just(0.0..1.0), Just(-1e6..1e6)]).prop_flat_map(|(count, range)| {
        (prop::collection::vec(range.clone(), count), prop::collection::vec(range, count))
    })
}

proptest! {
    #[test]
    fn declared_laws_hold((first, second) in values(), named in any::<bool>(), turn in 1..8_usize, raised in 0..8_usize) {
        let scale = first.iter().chain(&second).fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let (one, other) = (dressed(&first, named), dressed(&second, named));
        for (entry, rule) in CATALOGUE.each_example() {
            let Some([score, _]) = scores(&*rule, &one, &other) else { continue };
            let name = entry.name;
            prop_assert!(score.is_finite(), "{name}");
            let of_probabilities = first.iter().chain(&second).all(|value| (0.0..=1.0).contains(value));
            if rule.gives_probabilities(of_probabilities) {
                prop_assert!((-1e-7..=1.0 + 1e-7).contains(&score), "{name}: {score} is said to be a probability");
            }
            prop_assert!(!entry.laws.contains(&Law::Probability) || rule.gives_probabilities(false), "{name}");
            for law in entry.laws {
                match law {
                    Law::PermutationInvariant => {
                        let turned = |values: &[f64]| {
                            let mut values = values.to_vec();
                            values.rotate_left(turn % first.len());
                            dressed(&values, named)
                        };
                        let again = scores(&*rule, &turned(&first), &turned(&second)).unwrap()[0];
                        prop_assert!(close(score, again, scale * scale), "{name}: {score} {again}");
                    }
                    Law::OneMemberIsIdentity => {
                        if let Some([alone, _]) = scores(&*rule, &dressed(&first[..1], false), &dressed(&second[..1], false)) {
                            prop_assert!(close(alone, first[0], scale), "{name}: {alone} of {}", first[0]);
                        }
                    }
                    Law::WithinMembers => {
                        let highest = first.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let slack = 1e-9 * (1.0 + scale);
                        prop_assert!(one.minimum() - slack <= score && score <= highest + slack, "{name}: {score}");
                    }
                    Law::MonotoneInMembers => {
                        let mut higher = first.clone();
                        let index = raised % higher.len();
                        higher[index] = higher[index].max(second[index]);
                        let raised = scores(&*rule, &dressed(&higher, named), &other).unwrap()[0];
                        prop_assert!(raised >= score - 1e-9 * (1.0 + scale), "{name}: {score} fell to {raised}");
                    }
                    Law::Probability => prop_assert!((0.0..=1.0).contains(&score), "{name}: {score}"),
                    other => prop_assert!(false, "{name} declares {other:?}, which is no law of aggregations"),
                }
            }
        }
    }
}

#[test]
fn every_example_applies_to_some_members() {
    for (entry, rule) in CATALOGUE.each_example() {
        let applied = [1, 2, 3, 4, 5, 8].iter().any(|count| {
            let values = vec![0.5; *count];
            [false, true].iter().any(|named| {
                let members = dressed(&values, *named);
                scores(&*rule, &members, &members).is_some()
            })
        });
        assert!(applied, "{} never applied", entry.name);
    }
}

#[test]
fn extreme_members_stay_finite_or_are_refused() {
    let extremes = [
        vec![1e30, -1e30],
        vec![f64::MIN_POSITIVE / 2.0; 2],
        vec![f64::MAX, f64::MAX],
        vec![f64::MAX, f64::MIN],
        vec![7.0],
        vec![0.25; 5],
        vec![0.1; 10_000],
    ];
    for (entry, rule) in CATALOGUE.each_example() {
        for values in &extremes {
            for named in [false, true] {
                let members = dressed(values, named);
                if let Some(pair) = scores(&*rule, &members, &members) {
                    assert!(pair.iter().all(|score| score.is_finite()), "{} of {values:?}", entry.name);
                }
            }
        }
    }
}

#[test]
fn lambda_zero_is_the_mean() {
    for choice in [
        r#"{"uncertainty_weighted":{"lambda":0}}"#,
        r#"{"confidence_bound":{"lambda":0,"direction":"optimism"}}"#,
        r#"{"confidence_weighted":{"scale":0,"uncertainty":"variance"}}"#,
        r#"{"trimmed_mean":{"proportion":0}}"#,
        r#"{"cvar":{"share":1}}"#,
    ] {
        for values in [[1.0, 2.0, 4.0], [-1e30, 1e30, 3.0]] {
            let (actual, mean) =
                (super::testing::aggregate(choice, &values), super::testing::aggregate("\"mean\"", &values));
            assert!(close(actual, mean, 1e30_f64.min(values[1].abs())), "{choice}: {actual} is not {mean}");
        }
    }
}
