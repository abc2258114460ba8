//! Lays texts out as one pass: which of them, over which blocks, and where each token stands.
//!
//! The texts of a pass are put in the order of their tokens, so that what a text shares with any other it shares with the
//! one before it. Of that one it takes the whole blocks, which its block table begins with. What the two share of the
//! block behind them cannot be lent: the rows of those tokens are repeated before the text's own, into a block of its own,
//! and only attention sees them twice. So a system prompt, the prompts behind it and their candidates each stand once,
//! however deep that goes.
//!
//! ```text
//! text 1   [ block │ block │ tail, response 1 ]
//! text 2     └── lent ───┘ [ tail, response 2 ]      past: the lent blocks; rows: the repeated tail and its own tokens
//! ```

use std::collections::HashSet;

use super::{
    BLOCK_TOKENS, PackedPass, PackedRead, PackedSequence,
    blocks::{Blocks, Lease},
};
use crate::readout::Text;

/// A pass, and what belongs to whom.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) pass: PackedPass,
    /// For each of the pass's reads, the text and the number of its read.
    pub(super) reads: Vec<(usize, usize)>,
    pub(super) placed: Vec<Placed>,
    /// The texts that have to wait for another pass, in the order in which they were given.
    pub(super) left: Vec<usize>,
    /// Whether texts wait because blocks are short.
    pub(super) short: bool,
}

/// A text in a pass.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) text: usize,
    pub(super) lease: Lease,
    /// How many of its tokens were known.
    pub(super) known: usize,
    /// How many of them another text of the pass computes, or nobody.
    given: usize,
    /// Up to where its keys and values are worth keeping for later texts.
    pub(super) lasting: usize,
}

/// What may share a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most rows of a pass of several texts, repeated ones included.
    pub(super) rows: usize,
    /// Whether texts may share what they begin with: a token sees only those before it.
    pub(super) shares: bool,
}

impl Layout {
    /// A pass over as many of the `waiting` texts as its limits and the blocks allow, the first ones first. No text is in
    /// it where the first alone takes more blocks than there are.
    pub(super) fn new(texts: &[Text<'_>], waiting: &[usize], limits: Limits, blocks: &Blocks) -> Self {
        let mut draft = Draft { texts, limits, blocks, chosen: Vec::new(), rows: 0, taken: 0, short: false };
        for text in waiting {
            draft.join(*text);
        }
        let mut placing = Placing { texts, limits, layout: Self::default(), path: Vec::new(), bare: 0 };
        for (text, lease) in std::mem::take(&mut draft.chosen) {
            placing.place(text, lease);
        }
        let mut layout = placing.layout;
        layout.short |= draft.short;
        if layout.pass.segments.iter().all(|segment| *segment == 0) {
            layout.pass.segments.clear();
        }
        let placed: HashSet<usize> = layout.placed.iter().map(|placed| placed.text).collect();
        layout.left = waiting.iter().copied().filter(|text| !placed.contains(text)).collect();
        layout
    }

    /// Whether the same texts, laid out now, would come to the same: nothing more of them is known than when this was
    /// laid out, it is no longer than a pass may be, and blocks weren't short.
    pub(super) fn is_current(&self, texts: &[Text<'_>], limits: Limits, blocks: &Blocks) -> bool {
        let known = |placed: &Placed| {
            let text = &texts[placed.text];
            blocks.known(&text.ids[..text.sharable]) * BLOCK_TOKENS
        };
        let fits = self.pass.expand.len() <= limits.rows || self.placed.len() == 1;
        fits && !self.short && self.placed.iter().all(|placed| known(placed) <= placed.given)
    }
}

/// The choice of texts.
struct Draft<'a> {
    texts: &'a [Text<'a>],
    limits: Limits,
    blocks: &'a Blocks,
    /// In the order of their tokens, each with the blocks that hold a beginning of it.
    chosen: Vec<(usize, Lease)>,
    /// How many rows they have at most.
    rows: usize,
    /// How many blocks they take at most beside those that are known.
    taken: usize,
    short: bool,
}

impl Draft<'_> {
    /// Chooses a text if there is room for it.
    fn join(&mut self, index: usize) {
        let text = &self.texts[index];
        // Descending, so that of two texts one of which begins with the other the longer one comes first, and lends the
        // other all of it.
        let place = self.chosen.partition_point(|(other, _)| self.texts[*other].wanted() > text.wanted());
        let neighbours = self.chosen[place.saturating_sub(1)..].iter().take(2);
        let shared =
            neighbours.map(|(other, _)| common(&self.texts[*other], text)).filter(|_| self.limits.shares).max();
        let shared = shared.unwrap_or(0);
        let lease = self.blocks.find(&text.ids[..text.sharable]);
        let (rows, taken) = if shared == text.needed {
            (0, 0)
        } else {
            let whole = lease.blocks().len().max(shared / BLOCK_TOKENS);
            (text.needed - whole * BLOCK_TOKENS, text.needed.div_ceil(BLOCK_TOKENS) - whole)
        };
        let fits = self.chosen.is_empty() || self.rows + rows <= self.limits.rows;
        let has_room = self.taken + taken <= self.blocks.room();
        self.short |= fits && !has_room;
        if fits && has_room {
            self.rows += rows;
            self.taken += taken;
            self.chosen.insert(place, (index, lease));
        }
    }
}

/// The pass in the making.
struct Placing<'a> {
    texts: &'a [Text<'a>],
    limits: Limits,
    layout: Layout,
    /// The tokens of the pass that the text placed last consists of, from its position `bare` on; those before are known.
    path: Vec<usize>,
    bare: usize,
}

impl Placing<'_> {
    /// Places a text behind the others, unless the blocks are short; `lease` holds what is known of it.
    fn place(&mut self, index: usize, mut lease: Lease) {
        let text = &self.texts[index];
        let known = lease.blocks().len() * BLOCK_TOKENS;
        let before = self.layout.placed.last();
        let lent = before.map_or(0, |before| self.lent(&self.texts[before.text], text));
        let start = lent.max(known);
        let past = start / BLOCK_TOKENS;
        if let Some(before) = before.filter(|_| lent > known) {
            lease = before.lease.first(past);
        }
        let own = start..text.needed;
        if !own.is_empty() && !lease.extend(text.needed.div_ceil(BLOCK_TOKENS) - past) {
            self.layout.short = true;
            return;
        }
        if lent > known {
            self.path.truncate(lent - self.bare);
        } else {
            self.path.clear();
            self.bare = known;
        }
        let pass = &mut self.layout.pass;
        if !own.is_empty() {
            pass.sequences.push(PackedSequence {
                rows: own.end - past * BLOCK_TOKENS,
                past: past * BLOCK_TOKENS,
                blocks: lease.blocks().to_vec(),
            });
            pass.expand.extend_from_slice(&self.path[past * BLOCK_TOKENS - self.bare..]);
            if !self.limits.shares {
                pass.segments.extend_from_slice(&text.segments[own.clone()]);
            }
            for id in &text.ids[own] {
                pass.contract.push(pass.expand.len());
                pass.expand.push(pass.tokens.len());
                self.path.push(pass.tokens.len());
                pass.tokens.push(*id);
            }
        }
        for (number, read) in text.reads.iter().enumerate() {
            let at = self.path[read.at - self.bare];
            pass.reads.push(PackedRead { at, output: read.output, what: read.what.clone() });
            self.layout.reads.push((index, number));
        }
        // What several texts of one pass share, later ones may share as well.
        let lasting = text.lasting.max(lent);
        self.layout.placed.push(Placed { text: index, lease, known: self.bare, given: start, lasting });
    }

    /// How many of its first tokens a text takes from the one before it.
    fn lent(&self, before: &Text<'_>, text: &Text<'_>) -> usize {
        let shared = common(before, text);
        // What is known whole has no tokens in this pass that could be repeated or read.
        let whole = self.bare <= shared / BLOCK_TOKENS * BLOCK_TOKENS && self.bare <= text.sharable;
        if whole && self.limits.shares { shared } else { 0 }
    }
}

/// How many of the tokens that are needed two texts begin with in common.
fn common(a: &Text<'_>, b: &Text<'_>) -> usize {
    a.wanted().iter().zip(b.wanted()).take_while(|(a, b)| a == b).count()
}
