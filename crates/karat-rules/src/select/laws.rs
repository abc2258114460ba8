//! What holds for every selection rule of the list, with each of its examples.

use proptest::prelude::*;

use super::{CATALOGUE, Candidates, testing::candidates};
use crate::domain::catalogue::Law;

/// Candidates with everything that any rule may need; every third is a duplicate of the first.
fn dressed(rewards: &[f64]) -> Candidates {
    let text =
        |index: usize| if index.is_multiple_of(3) { "the same words".to_owned() } else { format!("answer {index}") };
    let texts: Vec<String> = (0..rewards.len()).map(text).collect();
    candidates(rewards)
        .with_objectives(rewards.iter().map(|reward| vec![*reward, -*reward]).collect())
        .and_then(|all| all.with_answers(texts.clone()))
        .and_then(|all| all.with_texts(texts))
        .and_then(|all| all.with_embeddings(rewards.iter().map(|reward| vec![*reward, 1.0]).collect()))
        .unwrap()
}

proptest! {
    #[test]
    fn picks_are_distinct_candidates_and_repeatable(
        rewards in prop::collection::vec(prop_oneof![-1.0..1.0_f64, -1e6..1e6_f64, Just(0.5)], 1..30),
    ) {
        let all = dressed(&rewards);
        for (entry, rule) in CATALOGUE.each_example() {
            let (name, laws) = (entry.name, entry.laws);
            prop_assert!(rule.check(&all.available()).is_ok(), "{name}");
            let selected = rule.select(&all).unwrap();
            let mut distinct = selected.indices.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), selected.indices.len(), "{}", name);
            prop_assert!(selected.indices.iter().all(|index| *index < rewards.len()), "{name}");
            prop_assert_eq!(&rule.select(&all).unwrap(), &selected, "{}", name);
            if let Some(probabilities) = &selected.probabilities {
                prop_assert_eq!(probabilities.len(), rewards.len());
                prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
            }
            if laws.contains(&Law::KeepsOrder) {
                let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                prop_assert!(rewards[selected.indices[0]] >= best, "{name}");
                prop_assert!(selected.indices.is_sorted_by(|a, b| rewards[*a] >= rewards[*b]), "{name}");
            }
        }
    }
}

#[test]
fn extremes_are_selected_from_without_panic() {
    for rewards in [vec![f64::MAX, f64::MIN], vec![7.0], vec![0.25; 100], vec![f64::MIN_POSITIVE / 2.0; 3]] {
        for (entry, rule) in CATALOGUE.each_example() {
            let selected = rule.select(&dressed(&rewards)).unwrap();
            assert!(selected.probabilities.iter().flatten().all(|p| p.is_finite()), "{}", entry.name);
        }
    }
}
