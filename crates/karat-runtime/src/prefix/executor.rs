//! Runs a batch of samples as rows of a decoder.

use std::{collections::HashMap, ops::Range, sync::Arc};

use karat_rules::domain::RowTensor;

use super::{
    cache::{CachedPrefix, Claimant, PrefixHash},
    forest::Forest,
    model::SharedModel,
    order::Order,
    path::{Path, Store, fragments},
    rows::{Piece, cut},
    singles::{forget, side_by_side},
};
use crate::{
    Cancellation, DecoderExecutor, DecoderRow, DecoderRowOutput, DecoderShape, Executor, KeyValues, Past, ReadAt,
    RuntimeError, Span, TokenBatch,
    readout::{Plan, Text, TextRead},
    telemetry::PrefixCounts,
};

/// Runs batches on one session of a decoder, sharing what samples begin with.
pub struct PrefixExecutor {
    decoder: Box<dyn DecoderExecutor>,
    shape: DecoderShape,
    model: Arc<SharedModel>,
}

impl PrefixExecutor {
    /// Takes a session, which must have been made to read the model's outputs in their order.
    #[must_use]
    pub fn new(decoder: Box<dyn DecoderExecutor>, model: Arc<SharedModel>) -> Self {
        Self { shape: decoder.shape(), decoder, model }
    }

    /// Gives the session back.
    #[must_use]
    pub fn into_decoder(self) -> Box<dyn DecoderExecutor> {
        self.decoder
    }
}

impl Executor for PrefixExecutor {
    fn run(&mut self, batch: &TokenBatch, cancel: &Cancellation) -> Result<Vec<Vec<RowTensor>>, RuntimeError> {
        let plans: Vec<Plan> =
            batch.inputs().iter().map(|input| self.model.readout.plan(input)).collect::<Result<_, RuntimeError>>()?;
        let texts: Vec<Text<'_>> =
            batch.inputs().iter().zip(&plans).map(|(input, plan)| Text::of(input, plan)).collect();
        let mut results: Results =
            texts.iter().map(|text| text.reads.iter().map(|_| None).collect::<Vec<_>>()).collect();
        // Of a text that nothing is read of there is nothing to compute.
        let mut waiting: Vec<usize> = (0..texts.len()).filter(|text| !texts[*text].reads.is_empty()).collect();
        while !waiting.is_empty() {
            let claimant = self.model.cache.claimant();
            let (known, in_flight) = self.look_up(&texts, &waiting, &claimant);
            waiting = in_flight.iter().map(|(text, _)| *text).collect();
            if known.is_empty() {
                // Nothing is claimed here, so that nobody can wait for us in turn.
                drop(claimant);
                if let Some((_, hash)) = in_flight.first() {
                    self.model.cache.wait(*hash, cancel);
                }
                if cancel.is_cancelled() {
                    return Err(RuntimeError::Cancelled);
                }
                continue;
            }
            let mut counts = PrefixCounts::default();
            for (text, found) in &known {
                counts.tokens += texts[*text].needed;
                counts.cached += found.tokens;
                counts.hits += usize::from(found.tokens > 0);
            }
            for group in self.groups(known) {
                let forest = Forest::grow(&texts, group);
                counts.computed += Pass::new(&mut *self.decoder, &self.shape, &self.model, &claimant, &texts, &forest)
                    .run(cancel, &mut results)?;
            }
            self.model.metrics.shared(counts);
        }
        let gathered = plans.iter().zip(results).map(|(plan, read)| plan.gather(read.into_iter()));
        let lost = || RuntimeError::Pass { cause: "a row gave less than was read of it".into() };
        gathered.map(|rows| rows.ok_or_else(lost)).collect()
    }

    fn pads(&self) -> bool {
        false
    }
}

/// What was read so far: by text and read.
type Results = Vec<Vec<Option<RowTensor>>>;

/// What is known of texts that can be computed now.
type Known = Vec<(usize, CachedPrefix)>;

impl PrefixExecutor {
    /// Finds what is known of the texts, and claims what is not. What another worker is computing comes second, each
    /// with the block that it waits for.
    fn look_up(&self, texts: &[Text<'_>], waiting: &[usize], claimant: &Claimant) -> (Known, Vec<(usize, PrefixHash)>) {
        let (cache, root, shares) = (&self.model.cache, self.model.root(), self.model.shares);
        let (mut known, mut in_flight) = (Vec::new(), Vec::new());
        for &index in waiting {
            let text = &texts[index];
            if !shares {
                known.push((index, cache.find(root, text.ids, 0)));
                continue;
            }
            match claimant.find_or_claim(root, text.ids, text.sharable, text.lasting) {
                Ok(found) => known.push((index, found)),
                Err(hash) => in_flight.push((index, hash)),
            }
        }
        (known, in_flight)
    }

    /// Which texts may share rows: all of them, or none.
    fn groups(&self, known: Known) -> Vec<Known> {
        if self.model.shares { vec![known] } else { known.into_iter().map(|text| vec![text]).collect() }
    }
}

/// A forest on its way through a session.
struct Pass<'a> {
    decoder: &'a mut dyn DecoderExecutor,
    model: &'a SharedModel,
    store: Store<'a>,
    texts: &'a [Text<'a>],
    forest: &'a Forest,
    /// What is computed of each node by earlier rows, where anything is and is needed.
    paths: Vec<Option<Path>>,
}

/// A row that is laid out: what its tokens are, and where its parts stand.
struct RowLayout {
    row: DecoderRow,
    /// For each of the row's reads, the text and the read.
    reads: Vec<(usize, usize)>,
    /// For each kept range, the piece it belongs to and where it ends in the text.
    kept: Vec<(usize, usize)>,
}

impl<'a> Pass<'a> {
    fn new(
        decoder: &'a mut dyn DecoderExecutor,
        shape: &'a DecoderShape,
        model: &'a SharedModel,
        claimant: &'a Claimant,
        texts: &'a [Text<'a>],
        forest: &'a Forest,
    ) -> Self {
        let store = Store { cache: &model.cache, claimant, shape };
        Self { decoder, model, store, texts, forest, paths: forest.nodes.iter().map(|_| None).collect() }
    }

    /// Computes every row; gives the number of tokens.
    fn run(mut self, cancel: &Cancellation, results: &mut Results) -> Result<usize, RuntimeError> {
        let rows = if self.model.shares { cut(self.forest, &self.model.cost) } else { self.whole() };
        let mut order = Order::new(self.forest, &rows);
        loop {
            let mut singles = self.model.singles.take();
            let singles = singles.as_deref_mut().map_or(&mut [][..], |singles| singles.as_mut_slice());
            let next = order.next(singles.len());
            let layouts: Vec<RowLayout> =
                next.iter().map(|row| self.lay_out(&rows[*row], |node| order.is_needed_again(node))).collect();
            let outputs = match layouts.as_slice() {
                [] => {
                    forget(singles);
                    return Ok(self.forest.tokens());
                }
                [only] => vec![self.decoder.forward(&only.row, cancel)?],
                several => side_by_side(singles, several.iter().map(|layout| &layout.row), cancel)?,
            };
            // Whose number it is can't be told from the row; each sample alone tells it.
            if !outputs.iter().all(DecoderRowOutput::is_finite) {
                return Err(RuntimeError::NotFinite);
            }
            for ((row, layout), output) in next.into_iter().zip(layouts).zip(outputs) {
                self.distribute(&rows[row], layout, output, results);
                // What later rows don't need is dropped, unless the cache has it.
                order.finish(row).into_iter().for_each(|node| self.paths[node] = None);
            }
        }
    }

    /// Each node whole, in a row of its own.
    fn whole(&self) -> Vec<Vec<Piece>> {
        let nodes = self.forest.nodes.iter().enumerate();
        nodes.map(|(node, at)| vec![Piece { node, range: at.range.clone() }]).collect()
    }

    /// Lays the pieces of a row out; `is_needed` says of a node whether later rows build on it.
    fn lay_out(&self, pieces: &[Piece], is_needed: impl Fn(usize) -> bool) -> RowLayout {
        let mut layout = RowLayout { row: DecoderRow::default(), reads: Vec::new(), kept: Vec::new() };
        let mut places: HashMap<(*const KeyValues, usize), usize> = HashMap::new();
        let (mut past_tokens, mut start) = (0, 0);
        let mut starts = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.iter().enumerate() {
            let node = &self.forest.nodes[piece.node];
            let ids = self.texts[node.text].ids;
            let mut sees_past: Vec<Range<usize>> = Vec::new();
            for past in self.past_of(piece.node) {
                let place = *places.entry((Arc::as_ptr(&past.values), past.range.start)).or_insert_with(|| {
                    let place = past_tokens;
                    past_tokens += past.range.len();
                    layout.row.past.push(past.clone());
                    place
                });
                match sees_past.last_mut() {
                    Some(range) if range.end == place => range.end += past.range.len(),
                    _ => sees_past.push(place..place + past.range.len()),
                }
            }
            let earlier =
                pieces[..index].iter().zip(&starts).filter(|(other, _)| self.builds_on(piece.node, other.node));
            let sees_new = earlier.map(|(other, start)| *start..*start + other.range.len()).collect();
            layout.row.spans.push(Span {
                tokens: ids[piece.range.clone()].to_vec(),
                position: piece.range.start,
                sees_past,
                sees_new,
            });

            for &(text, read) in &node.reads {
                let TextRead { at, output, what } = &self.texts[text].reads[read];
                if piece.range.contains(at) {
                    let at = start + at - piece.range.start;
                    layout.row.reads.push(ReadAt { at, output: *output, what: what.clone() });
                    layout.reads.push((text, read));
                }
            }
            let end = if is_needed(piece.node) {
                piece.range.end
            } else if self.model.shares && self.path_before(piece.node).is_none_or(Path::is_cachable) {
                node.lasting.clamp(piece.range.start, piece.range.end)
            } else {
                piece.range.start
            };
            for fragment in fragments(piece.range.start..end) {
                layout.kept.push((index, fragment.end));
                layout
                    .row
                    .keep
                    .push(start + fragment.start - piece.range.start..start + fragment.end - piece.range.start);
            }
            starts.push(start);
            start += piece.range.len();
        }
        layout
    }

    /// Puts what a row gave where it belongs.
    fn distribute(&mut self, pieces: &[Piece], layout: RowLayout, output: DecoderRowOutput, results: &mut Results) {
        for ((text, index), read) in layout.reads.into_iter().zip(output.reads) {
            results[text][index] = Some(read);
        }
        for ((piece, end), values) in layout.kept.into_iter().zip(output.kept) {
            let index = pieces[piece].node;
            let node = &self.forest.nodes[index];
            let own = self.paths[index].take();
            let before = || self.path_before(index).cloned();
            let mut path = own.or_else(before).unwrap_or_else(|| Path::start(&self.forest.roots[node.root]));
            path.extend(&self.store, self.texts[node.text].ids, end, node.lasting, values);
            self.paths[index] = Some(path);
        }
    }

    /// The nearest path that leads to the node, its own included; `None` where that is the root's.
    fn path_before(&self, node: usize) -> Option<&Path> {
        let mut at = Some(node);
        while let Some(node) = at {
            if let Some(path) = &self.paths[node] {
                return Some(path);
            }
            at = self.forest.nodes[node].parent;
        }
        None
    }

    /// What earlier rows and the cache hold of the texts that go through the node.
    fn past_of(&self, node: usize) -> &[Past] {
        let root = &self.forest.roots[self.forest.nodes[node].root].past;
        self.path_before(node).map_or(root, |path| &path.past)
    }

    /// Whether `node` is `other` or stands below it.
    fn builds_on(&self, node: usize, other: usize) -> bool {
        let mut at = Some(node);
        while let Some(node) = at {
            if node == other {
                return true;
            }
            at = self.forest.nodes[node].parent;
        }
        false
    }
}

#[cfg(test)]
mod tests;
