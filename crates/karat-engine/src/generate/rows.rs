//! Texts on a session that computes rows: their keys and values stand in one tensor.

use std::{rc::Rc, sync::Arc};

use karat_rules::domain::RowTensor;
use karat_runtime::{
    Cancellation, DecoderExecutor, DecoderRow, Read, ReadAt, RuntimeError, Span, packed::NextTokens,
    prefix::SharedModel,
};

use super::{memory::Memory, pages::Pages, slots::Lease};

/// A session with the memory of its texts.
pub(super) struct Rows {
    executor: Box<dyn DecoderExecutor>,
    memory: Memory,
    /// What is known of prompts, where the model scores as well.
    known: Option<Arc<SharedModel>>,
}

/// A text: its prompt, which others may go on from as well, and what it has of its own.
#[derive(Debug, Default)]
pub(super) struct RowText {
    start: Option<Rc<Lease>>,
    own: Lease,
}

impl RowText {
    fn tokens(&self) -> usize {
        self.start.as_ref().map_or(0, |start| start.tokens()) + self.own.tokens()
    }
}

impl Rows {
    pub(super) fn new(executor: Box<dyn DecoderExecutor>, known: Option<Arc<SharedModel>>) -> Self {
        Self { memory: Memory::new(executor.shape()), executor, known }
    }

    fn row(&self, next: &[NextTokens<RowText>]) -> DecoderRow {
        let mut row = DecoderRow { past: self.memory.past(), ..DecoderRow::default() };
        let mut end = 0;
        for NextTokens { text, tokens, read, .. } in next {
            let start = text.start.as_ref().map(|start| start.ranges()).unwrap_or_default();
            row.spans.push(Span {
                tokens: tokens.clone(),
                position: text.tokens(),
                sees_past: [start, text.own.ranges()].concat(),
                sees_new: Vec::new(),
            });
            end += tokens.len();
            if *read {
                row.reads.push(ReadAt { at: end - 1, output: 0, what: Read::Numbers });
            }
        }
        row.keep.push(0..end);
        row
    }
}

impl Pages for Rows {
    type Text = RowText;

    fn begin(&mut self, prompt: &[u32]) -> RowText {
        let mut text = RowText::default();
        let known = self.known.iter().flat_map(|known| known.beginning(prompt));
        for block in known {
            self.memory.keep(&mut text.own, &block, 0..block.tokens());
        }
        text
    }

    fn tokens(text: &RowText) -> usize {
        text.tokens()
    }

    fn compute(
        &mut self,
        next: &mut [NextTokens<RowText>],
        cancel: &Cancellation,
    ) -> Result<Vec<RowTensor>, RuntimeError> {
        let row = self.row(next);
        let output = self.executor.forward(&row, cancel)?;
        // The row shares the memory, which is written to below.
        drop(row);
        if !output.is_finite() {
            return Err(RuntimeError::NotFinite);
        }
        let mut first = 0;
        for NextTokens { text, tokens, .. } in next {
            for kept in &output.kept {
                self.memory.keep(&mut text.own, kept, first..first + tokens.len());
            }
            first += tokens.len();
        }
        Ok(output.reads)
    }

    fn divide(&mut self, prompt: &[u32], text: RowText, texts: usize) -> Vec<RowText> {
        if let Some(known) = &self.known {
            known.keep(prompt, |tokens| self.memory.copy(&text.own, tokens));
        }
        let start = Rc::new(text.own);
        (0..texts).map(|_| RowText { start: Some(Rc::clone(&start)), own: Lease::default() }).collect()
    }

    fn end(&mut self, text: RowText) {
        self.memory.end(text.own);
        if let Some(start) = text.start.and_then(Rc::into_inner) {
            self.memory.end(start);
        }
    }

    fn tidy(&mut self) {
        self.memory.fit();
    }
}
