//! Which rows may run now: those that build on nothing that isn't computed yet.

use std::collections::HashMap;

use super::{forest::Forest, rows::Piece};

/// The rows of a forest on their way.
#[derive(Debug)]
pub(super) struct Order {
    /// The nodes whose tokens each row sees or computes.
    needed: Vec<Vec<usize>>,
    /// The rows that each row builds on; all of them come before it.
    before: Vec<Vec<usize>>,
    done: Vec<bool>,
    /// How many rows that aren't done need each node.
    users: Vec<usize>,
}

impl Order {
    /// Of rows as they were cut: none comes before those that it builds on.
    pub(super) fn new(forest: &Forest, rows: &[Vec<Piece>]) -> Self {
        let mut latest: HashMap<usize, usize> = HashMap::new();
        let mut users = vec![0; forest.nodes.len()];
        let (mut needed, mut before) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for (number, row) in rows.iter().enumerate() {
            let mut nodes = Vec::new();
            for piece in row {
                let mut at = Some(piece.node);
                // Whoever needs a node needs those above it.
                while let Some(node) = at.filter(|node| !nodes.contains(node)) {
                    nodes.push(node);
                    users[node] += 1;
                    at = forest.nodes[node].parent;
                }
            }
            before.push(nodes.iter().filter_map(|node| latest.get(node).copied()).collect());
            row.iter().for_each(|piece| {
                latest.insert(piece.node, number);
            });
            needed.push(nodes);
        }
        Self { done: vec![false; rows.len()], needed, before, users }
    }

    /// The first `together` rows that may run side by side, or the first alone where there aren't as many. None when all
    /// are done.
    pub(super) fn next(&self, together: usize) -> Vec<usize> {
        let may_run = |row: &usize| !self.done[*row] && self.before[*row].iter().all(|before| self.done[*before]);
        let mut next: Vec<usize> = (0..self.done.len()).filter(may_run).take(together.max(1)).collect();
        if next.len() < together {
            next.truncate(1);
        }
        next
    }

    /// Whether rows build on a node beside the one that computes it now.
    pub(super) fn is_needed_again(&self, node: usize) -> bool {
        self.users[node] > 1
    }

    /// A row was computed; gives the nodes that no other needs.
    pub(super) fn finish(&mut self, row: usize) -> Vec<usize> {
        self.done[row] = true;
        let nodes = std::mem::take(&mut self.needed[row]);
        nodes.iter().for_each(|node| self.users[*node] -= 1);
        nodes.into_iter().filter(|node| self.users[*node] == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            cost::RowCost,
            forest::tests::{nothing, text},
            rows::cut,
        },
        *,
    };
    use crate::readout::Text;

    /// The rows that run together, by what is cut of the texts.
    fn waves(texts: &[Vec<u32>], together: usize) -> Vec<Vec<usize>> {
        let texts: Vec<Text<'_>> = texts.iter().map(|ids| text(ids)).collect();
        let forest = Forest::grow(&texts, (0..texts.len()).map(|text| (text, nothing(0))).collect());
        let rows = cut(&forest, &RowCost::assumed());
        let mut order = Order::new(&forest, &rows);
        let mut waves = Vec::new();
        loop {
            let next = order.next(together);
            if next.is_empty() {
                return waves;
            }
            next.iter().for_each(|row| drop(order.finish(*row)));
            waves.push(next);
        }
    }

    fn candidates(prompt: u32, shared: usize, count: u32, own: usize) -> Vec<Vec<u32>> {
        (0..count).map(|candidate| [vec![prompt; shared], vec![1000 + candidate; own]].concat()).collect()
    }

    #[test]
    fn candidates_run_side_by_side_behind_their_prompt() {
        let texts = candidates(1, 512, 16, 64);
        assert_eq!(waves(&texts, 2), [vec![0], vec![1], vec![2, 3], vec![4, 5]]);
        assert_eq!(waves(&texts, 3), [vec![0], vec![1], vec![2, 3, 4], vec![5]]);
        assert_eq!(waves(&texts, 0), waves(&texts, 1), "one after another");
    }

    #[test]
    fn prompts_run_side_by_side() {
        let texts = [candidates(1, 1024, 1, 8), candidates(2, 512, 1, 8)].concat();
        // Rows 0 to 3 are the first text's, 4 and 5 the second's.
        assert_eq!(waves(&texts, 2), [vec![0, 4], vec![1, 5], vec![2], vec![3]]);
    }

    proptest! {
        #[test]
        fn what_a_row_builds_on_is_there_and_stays_until_the_last(
            texts in vec(vec(0..2_u32, 1..900), 1..12), together in 1..4_usize,
        ) {
            let texts: Vec<Text<'_>> = texts.iter().map(|ids| text(ids)).collect();
            let forest = Forest::grow(&texts, (0..texts.len()).map(|text| (text, nothing(0))).collect());
            let rows = cut(&forest, &RowCost::assumed());
            let mut order = Order::new(&forest, &rows);
            let mut computed: Vec<usize> = forest.nodes.iter().map(|node| node.range.start).collect();
            let mut dropped = vec![false; forest.nodes.len()];
            let mut run = 0;
            loop {
                let next = order.next(together);
                if next.is_empty() {
                    break;
                }
                let before = computed.clone();
                for row in &next {
                    let mut own = before.clone();
                    for piece in &rows[*row] {
                        prop_assert_eq!(piece.range.start, own[piece.node]);
                        own[piece.node] = piece.range.end;
                        let mut at = Some(piece.node);
                        while let Some(node) = at {
                            prop_assert!(!dropped[node]);
                            at = forest.nodes[node].parent;
                            prop_assert!(at.is_none_or(|parent| own[parent] == forest.nodes[parent].range.end));
                        }
                        computed[piece.node] = piece.range.end;
                    }
                    run += 1;
                }
                for row in next {
                    order.finish(row).into_iter().for_each(|node| dropped[node] = true);
                }
            }
            prop_assert_eq!(run, rows.len());
            prop_assert!(dropped.iter().all(|dropped| *dropped));
        }
    }
}
