//! What holds for every head of the list, with each of its examples: it accepts the outputs that it asks for, reads
//! finite numbers or refuses, and never accepts what it could misread.

use proptest::prelude::*;

use super::{
    Axis, CATALOGUE, Head, HeadError, HeadOutput, Layout,
    testing::{input, output, row},
};
use crate::domain::{After, Probe, Reading, RowTensor, TensorSpec, TokenizedInput, catalogue::Law};

const TOKENS: usize = 4;

fn length(axis: Axis) -> usize {
    match axis {
        Axis::Tokens => TOKENS,
        Axis::Exactly(count) | Axis::AtLeast(count) => count,
    }
}

fn specs(set: &[Layout]) -> Vec<TensorSpec> {
    set.iter()
        .map(|layout| {
            output(
                &layout.0.iter().map(|axis| if *axis == Axis::Tokens { 0 } else { length(*axis) }).collect::<Vec<_>>(),
            )
        })
        .collect()
}

fn rows(set: &[Layout], value: impl Fn(usize) -> f32) -> Vec<RowTensor> {
    set.iter()
        .map(|layout| {
            let shape: Vec<usize> = layout.0.iter().map(|axis| length(*axis)).collect();
            let values: Vec<f32> = (0..shape.iter().product()).map(&value).collect();
            row(&shape, &values)
        })
        .collect()
}

fn marked() -> TokenizedInput {
    input(TOKENS).with_steps(vec![1, 3]).unwrap()
}

/// What a head makes of a sample whose passes all return these numbers.
fn score(head: &dyn Head, set: &[Layout], value: impl Fn(usize) -> f32) -> Result<HeadOutput, HeadError> {
    let Some(probing) = head.probing() else { return head.read(&marked(), &rows(set, value)) };
    let probes = probing.probes(&probing.example()).unwrap();
    let readings = probes.iter().map(|probe| {
        let (reading, count) = match probe {
            Probe::Response(_) | Probe::LastTurn { .. } => (Reading::LogProbabilities(1..TOKENS), TOKENS - 1),
            Probe::NextWord { words, .. } => {
                (Reading::Logits(After::End, words.iter().map(|_| 7).collect()), words.len())
            }
            Probe::NextLogit { .. } => (Reading::Logits(After::End, [7].into()), 1),
            Probe::Steps { words, .. } => {
                let tokens = words.iter().map(|_| 7).collect();
                (Reading::Logits(After::Steps, tokens), marked().steps().len() * words.len())
            }
            Probe::LastState(_) => (Reading::LastState, 2),
            Probe::Text(_) | Probe::Image(_) => (Reading::Scores, 2),
        };
        let shape = match &reading {
            Reading::Logits(After::Steps, tokens) => vec![count / tokens.len(), tokens.len()],
            _ => vec![count],
        };
        let values: Vec<f32> = (0..count).map(&value).collect();
        head.read(&marked().with_reading(reading).unwrap(), &[row(&shape, &values)])
    });
    let readings = readings.collect::<Result<Vec<_>, _>>()?;
    probing.combine(&vec![readings.iter().collect(); probing.graphs()])
}

fn numbers(output: &HeadOutput) -> Vec<f64> {
    let members = output.members().iter().map(|reward| reward.get());
    members
        .chain(output.deviations().into_iter().flatten().copied())
        .chain(output.steps().into_iter().flatten().copied())
        .collect()
}

proptest! {
    #[test]
    fn what_is_read_is_finite_and_lawful(values in prop::collection::vec(-50.0..50.0_f32, 1..64)) {
        for (entry, head) in CATALOGUE.each_example() {
            for set in head.layouts() {
                // A gaussian's spread can't be negative; every other head takes these as well.
                let Ok(output) = score(&*head, &set, |index| values[index % values.len()].abs()) else { continue };
                let numbers = numbers(&output);
                prop_assert!(!output.members().is_empty() && numbers.iter().all(|number| number.is_finite()), "{head:?}");
                prop_assert!(!entry.laws.contains(&Law::Probability) || head.gives_probabilities(), "{head:?}");
                if head.gives_probabilities() {
                    prop_assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)), "{head:?}");
                }
                if entry.laws.contains(&Law::Bounded) {
                    prop_assert!(numbers.iter().all(|number| number.abs() <= 1.0), "{head:?}");
                }
                prop_assert_eq!(output.steps().is_some(), head.gives_steps());
                let shape = head.shape();
                let objectives = shape.objectives.as_ref().map_or(1, |names| names.len());
                prop_assert_eq!(output.members().len(), shape.members * objectives);
                prop_assert_eq!(output.deviations().is_some(), shape.deviations);
                prop_assert!(output.bytes() >= size_of_val(output.members()));
            }
        }
    }
}

#[test]
fn every_head_accepts_what_it_asks_for_and_nothing_longer() {
    for (_, head) in CATALOGUE.each_example() {
        for set in head.layouts() {
            let outputs = specs(&set);
            let outputs: Vec<&TensorSpec> = outputs.iter().collect();
            assert_eq!(head.check(&outputs), Ok(()), "{head:?}");
            assert!(score(&*head, &set, |_| 0.5).is_ok(), "{head:?}");
            assert!(head.check(&[]).is_err(), "{head:?}");
            let deeper: Vec<TensorSpec> = set
                .iter()
                .map(|layout| output(&[layout.0.iter().map(|axis| length(*axis)).collect(), vec![2, 2]].concat()))
                .collect();
            assert!(head.check(&deeper.iter().collect::<Vec<_>>()).is_err(), "{head:?}");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused_and_extremes_never_panic() {
    for (_, head) in CATALOGUE.each_example() {
        for set in head.layouts() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(score(&*head, &set, |_| bad).is_err(), "{head:?}");
            }
            for extreme in [1e30, -1e30, f32::MAX, f32::MIN, f32::MIN_POSITIVE / 2.0, 0.0] {
                if let Ok(output) = score(&*head, &set, |_| extreme) {
                    assert!(numbers(&output).iter().all(|number| number.is_finite()), "{head:?} of {extreme}");
                }
            }
        }
    }
}
