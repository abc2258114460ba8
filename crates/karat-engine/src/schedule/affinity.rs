//! Which texts run together where none is padded.

use std::{cmp::Reverse, num::NonZeroUsize};

use super::{Grouping, Policy};

/// The most tokens of texts that share a pass without sharing much else, where each of them costs attention to all
/// others: about as many as make the best use of one row.
const ROW: usize = 256;

/// A pass of packed rows is full when less than one part of so many is missing.
const FULL: usize = 32;

/// Chooses who joins the first of `texts`, those with most of its beginning first: indices, the first one's included.
///
/// Each token that several texts begin with counts once, and a text that doesn't fit into the budget is passed over. The
/// first runs whatever its length. Where batches are formed by beginnings, a text that shares less than a quarter of what
/// it adds joins only while all of them together fill no row; or with those who begin like it, where as many beginnings
/// come together as are computed side by side.
pub(super) fn join(texts: &[&[u32]], policy: &Policy) -> Vec<usize> {
    let abreast = match policy.grouping {
        Grouping::Beginning { abreast } => abreast.get(),
        Grouping::Length | Grouping::EqualLength | Grouping::Packed { .. } => 1,
    };
    let (chosen, beginnings) = with_strangers(texts, policy, abreast - 1);
    // Some, but fewer, would be computed one after another, and the first would wait for the last of them for nothing.
    if (2..abreast).contains(&beginnings) { with_strangers(texts, policy, 0).0 } else { chosen }
}

/// The same with at most so many beginnings beside the first one's; and how many beginnings there are in all.
fn with_strangers(texts: &[&[u32]], policy: &Policy, mut strangers: usize) -> (Vec<usize>, usize) {
    let Some(first) = texts.first() else { return (Vec::new(), 0) };
    let (unit, packed) = match policy.grouping {
        Grouping::Packed { shared } => (shared.map_or(usize::MAX, NonZeroUsize::get), true),
        Grouping::Length | Grouping::EqualLength | Grouping::Beginning { .. } => (1, false),
    };
    let shared = |a: &[u32], b: &[u32]| common(a, b) / unit * unit;
    let mut others: Vec<(usize, usize)> = (1..texts.len()).map(|text| (shared(first, texts[text]), text)).collect();
    // The earlier of equals first: they are in the order in which they are due.
    others.sort_by_key(|&(shared, text)| (Reverse(shared), text));
    // In the order of the texts themselves, what a text shares with any other it shares with a neighbour.
    let mut chosen: Vec<usize> = vec![0];
    let mut joined = if packed { first.len() } else { 0 };
    let mut beginnings = 1;
    for (_, text) in others {
        // A pass that is all but full isn't worth looking through everything that waits.
        if chosen.len() >= policy.max_batch || (packed && joined + joined / FULL >= policy.budget) {
            break;
        }
        let ids = texts[text];
        let place = chosen.partition_point(|other| texts[*other] < ids);
        let shared_with = |other: Option<&usize>| other.map_or(0, |other| shared(texts[*other], ids));
        let shared =
            shared_with(place.checked_sub(1).and_then(|before| chosen.get(before))).max(shared_with(chosen.get(place)));
        let added = ids.len() - shared;
        if joined + added > policy.budget {
            continue;
        }
        if !packed && shared.saturating_mul(4) < added && first.len() + joined + added > ROW {
            if strangers == 0 {
                continue;
            }
            strangers -= 1;
            beginnings += 1;
        }
        chosen.insert(place, text);
        joined += added;
    }
    chosen.sort_unstable();
    (chosen, beginnings)
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A text that begins with `shared` tokens of a prompt and has `own` more.
    fn text(prompt: u32, shared: usize, number: u32, own: usize) -> Vec<u32> {
        [vec![prompt; shared], vec![1000 + number; own]].concat()
    }

    fn chosen_by(grouping: Grouping, texts: &[Vec<u32>], budget: usize, most: usize) -> Vec<usize> {
        let policy = Policy { grouping, budget, max_batch: most, ..Policy::default() };
        join(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>(), &policy)
    }

    fn chosen(texts: &[Vec<u32>], budget: usize, most: usize) -> Vec<usize> {
        chosen_by(Grouping::Beginning { abreast: NonZeroUsize::MIN }, texts, budget, most)
    }

    /// How many different beginnings the texts have: what is computed when nothing is computed twice.
    fn unique(texts: &[Vec<u32>]) -> usize {
        texts.iter().flat_map(|text| (1..=text.len()).map(|end| &text[..end])).collect::<HashSet<_>>().len()
    }

    #[test]
    fn candidates_of_one_prompt_run_together_whatever_stands_between() {
        let mut texts: Vec<Vec<u32>> = Vec::new();
        for number in 0..8 {
            texts.push(text(1, 500, number, 30));
            texts.push(text(2, 500, number, 30));
        }
        assert_eq!(chosen(&texts, 210, 64), [0, 2, 4, 6, 8, 10, 12, 14], "however long the prompt is");
        assert_eq!(chosen(&texts, 80, 64), [0, 2, 4], "30 tokens join the first's 530 twice");
        assert_eq!(chosen(&texts, 2048, 3), [0, 2, 4]);
    }

    #[test]
    fn a_text_that_does_not_fit_is_passed_over() {
        let texts = [text(1, 100, 0, 10), text(1, 100, 1, 900), text(1, 100, 2, 10)];
        assert_eq!(chosen(&texts, 500, 64), [0, 2]);
        assert_eq!(chosen(&[text(1, 900, 0, 10)], 500, 64), [0], "the first always runs");
        assert_eq!(
            chosen(&[text(1, 10, 0, 10), text(2, 30, 0, 30)], 40, 64),
            [0],
            "a stranger's 60 tokens are too many"
        );
    }

    #[test]
    fn strangers_share_a_pass_only_while_it_is_short() {
        let short = [text(1, 10, 0, 10), text(2, 100, 0, 10), text(3, 100, 0, 10), text(4, 200, 0, 10)];
        assert_eq!(chosen(&short, 2048, 64), [0, 1, 2]);
        // A template's first words are not much to share.
        let template = [text(1, 20, 0, 1000), text(1, 20, 1, 1000)];
        assert_eq!(chosen(&template, 4096, 64), [0]);
    }

    #[test]
    fn as_many_strangers_as_are_computed_side_by_side_share_a_pass() {
        let chosen = |texts: &[Vec<u32>], budget, abreast| {
            let abreast = NonZeroUsize::new(abreast).unwrap();
            chosen_by(Grouping::Beginning { abreast }, texts, budget, 64)
        };
        let prompts: Vec<Vec<u32>> =
            (0..6).flat_map(|prompt| [text(prompt, 500, 0, 30), text(prompt, 500, 1, 30)]).collect();
        assert_eq!(chosen(&prompts, 2048, 1), [0, 1]);
        assert_eq!(chosen(&prompts, 2048, 2), [0, 1, 2, 3], "30 and 560 tokens join the first");
        assert_eq!(chosen(&prompts, 570, 2), [0, 1, 2]);
        assert_eq!(chosen(&prompts, 500, 2), [0, 1], "no other prompt fits");
        assert_eq!(chosen(&prompts, 1140, 3), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(&prompts, 1100, 3), [0, 1], "two of three would run one after the other");
    }

    #[test]
    fn packed_texts_share_a_pass_with_any_other_up_to_the_budget() {
        let apart = Grouping::Packed { shared: None };
        let strangers: Vec<Vec<u32>> = (0..6).map(|number| text(number, 100, number, 50)).collect();
        assert_eq!(chosen_by(apart, &strangers, 500, 64), [0, 1, 2], "the first counts as well");
        assert_eq!(chosen_by(apart, &strangers, 100, 64), [0], "and runs whatever its length");
        let alike: Vec<Vec<u32>> = (0..6).map(|number| text(1, 512, number, 50)).collect();
        assert_eq!(chosen_by(apart, &alike, 1200, 64), [0, 1], "nothing is shared");
        let blocks = Grouping::Packed { shared: NonZeroUsize::new(256) };
        assert_eq!(chosen_by(blocks, &alike, 712, 64), [0, 1, 2, 3], "512 + 4 · 50");
        // What is shared of a block that is not whole is repeated; and those that begin alike go first.
        let tail = [text(1, 300, 0, 10), text(2, 300, 0, 10), text(1, 300, 1, 10), text(3, 90, 0, 10)];
        assert_eq!(chosen_by(blocks, &tail, 464, 64), [0, 2, 3], "310 + 54 + 100");
        assert_eq!(chosen_by(blocks, &tail, 463, 64), [0, 2]);
    }

    proptest! {
        #[test]
        fn the_budget_counts_every_token_once(
            texts in vec(vec(0..3_u32, 1..20), 1..15), budget in 1..60_usize, most in 1..10_usize,
        ) {
            let chosen = chosen(&texts, budget, most);
            prop_assert!(chosen.contains(&0) && chosen.len() <= most && chosen.is_sorted_by(|a, b| a < b));
            let together: Vec<Vec<u32>> = chosen.iter().map(|text| texts[*text].clone()).collect();
            prop_assert!(unique(&together) <= budget + texts[0].len());
        }
    }
}
