//! Cuts a forest into rows: which tokens one pass computes together.
//!
//! Long runs are cut into rows of the length that makes the best use of the machine; short ones share a row while that
//! costs less than rows of their own. Candidates of one prompt have the same past and share one gladly; texts with
//! different pasts only while these are short, for a row pays for all of its past with every token.

use std::{collections::HashSet, ops::Range};

use super::{
    cache::BLOCK,
    cost::RowCost,
    forest::{Forest, Node},
};

/// A part of a node that one row computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) node: usize,
    /// Positions in the node's text.
    pub(super) range: Range<usize>,
}

/// Cuts the forest. Every token is in exactly one row, and none before those that it builds on.
pub(super) fn cut(forest: &Forest, cost: &RowCost) -> Vec<Vec<Piece>> {
    let mut packer = Packer { forest, cost, rows: Vec::new(), row: Row::default(), done: Vec::new(), left: 0 };
    packer.done = forest.nodes.iter().map(|node| node.range.start).collect();
    for (at, node) in forest.nodes.iter().enumerate() {
        if node.parent.is_none() {
            packer.left = node.below;
        }
        for range in pieces(node, cost) {
            packer.add(Piece { node: at, range });
        }
    }
    packer.close();
    packer.rows
}

/// Cuts a node so that no part is much longer than the best row.
fn pieces(node: &Node, cost: &RowCost) -> Vec<Range<usize>> {
    let Range { start, end } = node.range;
    let best = cost.best(start.midpoint(end));
    let length = end - start;
    let count = if length <= best + best / 2 { 1 } else { ((length + best / 2) / best).max(1) };
    // Cuts at whole blocks, so that each block is kept in one piece.
    let cut = |part: usize| if part == count { end } else { (start + length * part / count) / BLOCK * BLOCK };
    let mut cuts: Vec<usize> = (1..=count).map(cut).filter(|cut| *cut > start).collect();
    cuts.dedup();
    let starts = std::iter::once(start).chain(cuts.clone());
    starts.zip(cuts).map(|(start, end)| start..end).collect()
}

struct Packer<'a> {
    forest: &'a Forest,
    cost: &'a RowCost,
    rows: Vec<Vec<Piece>>,
    row: Row,
    /// Up to which position each node was computed by the rows that are closed.
    done: Vec<usize>,
    /// How many tokens of the current tree are still to come.
    left: usize,
}

/// The row that is being filled.
#[derive(Default)]
struct Row {
    pieces: Vec<Piece>,
    tokens: usize,
    past: Seen,
}

/// What a row's tokens see of closed rows: beginnings from the cache, and nodes.
#[derive(Default, Clone)]
struct Seen {
    tokens: usize,
    roots: HashSet<usize>,
    nodes: HashSet<usize>,
}

impl Packer<'_> {
    fn add(&mut self, piece: Piece) {
        let mut past = self.row.past.clone();
        self.see(&piece, &mut past);
        if !self.row.pieces.is_empty() && !self.is_worthwhile(&piece, &past) {
            self.close();
            past = Seen::default();
            self.see(&piece, &mut past);
        }
        self.left = self.left.saturating_sub(piece.range.len());
        self.row.past = past;
        self.row.tokens += piece.range.len();
        self.row.pieces.push(piece);
    }

    /// Adds to `past` what `piece` sees of closed rows.
    fn see(&self, piece: &Piece, past: &mut Seen) {
        let mut at = Some(piece.node);
        while let Some(index) = at {
            let node = &self.forest.nodes[index];
            let computed = self.done[index] - node.range.start;
            if computed > 0 && past.nodes.insert(index) {
                past.tokens += computed;
            }
            at = node.parent;
        }
        let root = self.forest.nodes[piece.node].root;
        if past.roots.insert(root) {
            past.tokens += self.forest.roots[root].tokens;
        }
    }

    /// Whether the row is better with the piece, whose past would then be `past`, than without.
    fn is_worthwhile(&self, piece: &Piece, past: &Seen) -> bool {
        let tokens = self.row.tokens + piece.range.len();
        let best = self.cost.best(past.tokens);
        // A row that is full stays as it is; one that isn't may become a little longer than the best.
        if self.row.tokens >= best || tokens > best + best / 4 {
            return false;
        }
        if past.tokens == self.row.past.tokens {
            return true;
        }
        // In a row of its own the piece would have company from its own tree, as far as that goes.
        let mut own = Seen::default();
        self.see(piece, &mut own);
        let company = self.left.clamp(piece.range.len(), best.max(piece.range.len()));
        let share = piece.range.len() as f64 / company as f64;
        let apart = self.cost.of(self.row.tokens, self.row.past.tokens) + self.cost.of(company, own.tokens) * share;
        self.cost.of(tokens, past.tokens) <= apart
    }

    fn close(&mut self) {
        let row = std::mem::take(&mut self.row);
        for piece in &row.pieces {
            self.done[piece.node] = piece.range.end;
        }
        if !row.pieces.is_empty() {
            self.rows.push(row.pieces);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::forest::tests::{nothing, text},
        *,
    };
    use crate::readout::Text;

    fn lengths(texts: &[Vec<u32>]) -> Vec<usize> {
        let texts: Vec<Text<'_>> = texts.iter().map(|ids| text(ids)).collect();
        let forest = Forest::grow(&texts, (0..texts.len()).map(|text| (text, nothing(0))).collect());
        let rows = cut(&forest, &RowCost::assumed());
        rows.iter().map(|row| row.iter().map(|piece| piece.range.len()).sum()).collect()
    }

    /// `count` candidates of `own` tokens each for a prompt of `shared` tokens that begins with `prompt`.
    fn candidates(prompt: u32, shared: usize, count: u32, own: usize) -> Vec<Vec<u32>> {
        let text = |candidate| [vec![prompt; shared], vec![1000 + candidate; own]].concat();
        (0..count).map(text).collect()
    }

    #[test]
    fn candidates_are_packed_behind_their_prompt() {
        assert_eq!(lengths(&candidates(1, 1024, 16, 32)), [256; 6]);
        assert_eq!(lengths(&candidates(1, 1024, 5, 100)), [256, 256, 256, 256, 300, 200]);
        assert_eq!(lengths(&candidates(1, 1024, 2, 700)), [256, 256, 256, 256, 224, 240, 236, 224, 240, 236]);
    }

    #[test]
    fn a_text_alone_is_cut_evenly() {
        assert_eq!(lengths(&candidates(1, 0, 1, 1056)), [256, 272, 256, 272]);
        assert_eq!(lengths(&candidates(1, 0, 1, 300)), [300]);
    }

    #[test]
    fn short_texts_of_several_prompts_share_a_row_and_long_ones_do_not() {
        let short = [candidates(1, 20, 2, 10), candidates(2, 30, 2, 10), candidates(3, 8, 1, 8)].concat();
        assert_eq!(lengths(&short), [106]);
        let long = [candidates(1, 1000, 1, 24), candidates(2, 1000, 1, 24)].concat();
        assert_eq!(lengths(&long), [256; 8]);
        // A handful of tokens behind each of two long prompts: two rows, though together they would fill one.
        let tails = [candidates(1, 1024, 2, 40), candidates(2, 1024, 2, 40)].concat();
        assert_eq!(lengths(&tails), [256, 256, 256, 256, 80, 256, 256, 256, 256, 80]);
    }

    proptest! {
        #[test]
        fn every_token_is_computed_once_and_after_those_it_builds_on(texts in vec(vec(0..2_u32, 1..900), 1..12)) {
            let texts: Vec<Text<'_>> = texts.iter().map(|ids| text(ids)).collect();
            let forest = Forest::grow(&texts, (0..texts.len()).map(|text| (text, nothing(0))).collect());
            let mut done: Vec<usize> = forest.nodes.iter().map(|node| node.range.start).collect();
            for piece in cut(&forest, &RowCost::assumed()).into_iter().flatten() {
                prop_assert_eq!(piece.range.start, done[piece.node]);
                prop_assert!(piece.range.end > piece.range.start);
                done[piece.node] = piece.range.end;
                if let Some(parent) = forest.nodes[piece.node].parent {
                    prop_assert_eq!(done[parent], forest.nodes[parent].range.end);
                }
            }
            prop_assert!(forest.nodes.iter().zip(done).all(|(node, done)| node.range.end == done));
        }
    }
}
