//! One session's passes: the last tokens of all texts, and pieces of prompts.

use std::{
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use karat_rules::domain::RowTensor;
use karat_runtime::{RuntimeError, packed::NextTokens};

use super::{
    order::GenerationLimits,
    orders::{Orders, WaitingOrder},
    pages::Pages,
    sampling::Sampler,
    stream::{Event, Finish, GenerateError, Sender},
};

/// What one thread holds.
pub(super) struct Worker<'a, P: Pages> {
    orders: &'a Orders,
    pages: P,
    prompts: VecDeque<Prompt<P::Text>>,
    texts: Vec<Text<P::Text>>,
    /// How many blocks all that was admitted may come to take.
    promised: usize,
}

/// A prompt that is being read.
struct Prompt<T> {
    waiting: WaitingOrder,
    text: T,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Reading,
    /// It was read to its end, and its places belong to its texts.
    Read,
    Failed,
}

/// What the texts of one order have in common, as long as one of them is written.
struct Start {
    max_tokens: usize,
    ends: Arc<[u32]>,
    promised: usize,
}

/// A text that is being written.
struct Text<T> {
    start: Rc<Start>,
    text: T,
    sampler: Sampler,
    sender: Sender,
    /// The token that was drawn last; it has not been computed yet.
    last: u32,
    /// How many tokens were drawn.
    drawn: usize,
    over: bool,
}

/// A part of a pass.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// The last token of the text of that index.
    Text(usize),
    /// The next tokens of the prompt of that index, at least one.
    Prompt { index: usize, tokens: usize },
}

impl<'a, P: Pages> Worker<'a, P> {
    pub(super) fn new(orders: &'a Orders, pages: P) -> Self {
        Self { orders, pages, prompts: VecDeque::new(), texts: Vec::new(), promised: 0 }
    }

    /// Writes until the generator stops and nothing is left.
    pub(super) fn work(mut self) {
        while self.admit() {
            let pieces = self.plan();
            self.run(&pieces);
            self.drop_finished();
            self.orders.metrics.writing(self.texts.len());
        }
    }

    /// Begins what there is room for; waits while there is nothing to do. Whether there is anything to do.
    fn admit(&mut self) -> bool {
        loop {
            let idle = self.prompts.is_empty() && self.texts.is_empty();
            let to_come: usize = self.prompts.iter().map(|prompt| prompt.waiting.senders.len()).sum();
            let busy = self.texts.len() + to_come;
            let limits = self.orders.limits;
            let promised = self.promised;
            let next = self.orders.next(idle, |order| {
                busy + order.texts.len() <= limits.texts && promised + order.blocks(&limits) <= limits.blocks()
            });
            let Some(waiting) = next else { return !idle };
            self.promised += waiting.order.blocks(&limits);
            let text = self.pages.begin(&waiting.order.prompt);
            self.prompts.push_back(Prompt { waiting, text, progress: Progress::Reading });
        }
    }

    /// The next pass: one token of every text, and of prompts as many as there is room for, the oldest first.
    fn plan(&self) -> Vec<Piece> {
        let GenerationLimits { row, block, .. } = self.orders.limits;
        let mut room = row.saturating_sub(self.texts.len()).max(block);
        let mut pieces: Vec<Piece> = (0..self.texts.len()).map(Piece::Text).collect();
        for (index, prompt) in self.prompts.iter().enumerate() {
            let left = prompt.waiting.order.prompt.len() - P::tokens(&prompt.text);
            // Cut between blocks, so that what its texts each need of the last one is computed in one piece.
            let tokens = if left <= room { left } else { room / block * block };
            if tokens == 0 {
                break;
            }
            room -= tokens;
            pieces.push(Piece::Prompt { index, tokens });
        }
        pieces
    }

    /// Runs a pass. Where it fails, its pieces are run one by one, so that none takes its neighbours with it.
    fn run(&mut self, pieces: &[Piece]) {
        match (self.attempt(pieces), pieces) {
            (Ok(reads), _) => self.apply(pieces, reads),
            (Err(error), [alone]) => self.fail(*alone, &error),
            (Err(error @ GenerateError::Stopped), _) => pieces.iter().for_each(|piece| self.fail(*piece, &error)),
            (Err(_), _) => pieces.iter().for_each(|piece| self.run(&[*piece])),
        }
    }

    fn attempt(&mut self, pieces: &[Piece]) -> Result<Vec<RowTensor>, GenerateError> {
        if self.orders.cancellation.is_cancelled() {
            return Err(GenerateError::Stopped);
        }
        let mut next: Vec<NextTokens<P::Text>> = pieces.iter().map(|piece| self.next(*piece)).collect();
        // What panicked is used again: its session is the runtime's, which no Rust panic passes through, and its buffers
        // are rewritten for each pass.
        let Self { pages, orders, .. } = self;
        let computed = catch_unwind(AssertUnwindSafe(|| pages.compute(&mut next, &orders.cancellation)));
        for (piece, next) in pieces.iter().zip(next) {
            match *piece {
                Piece::Text(index) => self.texts[index].text = next.text,
                Piece::Prompt { index, .. } => self.prompts[index].text = next.text,
            }
        }
        match computed {
            Ok(Ok(reads)) => Ok(reads),
            Ok(Err(RuntimeError::NotFinite)) => Err(GenerateError::NotFinite),
            Ok(Err(RuntimeError::Cancelled)) => Err(GenerateError::Stopped),
            Ok(Err(error)) => {
                tracing::warn!(%error, pieces = pieces.len(), "a pass over texts failed");
                Err(GenerateError::Runtime(Arc::new(error)))
            }
            // The panic's own message went through the panic hook.
            Err(_) => Err(GenerateError::Panicked),
        }
    }

    /// What a piece is to the pages, which hold its text meanwhile.
    fn next(&mut self, piece: Piece) -> NextTokens<P::Text> {
        match piece {
            Piece::Text(index) => {
                let text = &mut self.texts[index];
                NextTokens { text: mem::take(&mut text.text), tokens: vec![text.last], read: true, texts: 1 }
            }
            Piece::Prompt { index, tokens } => {
                let Prompt { waiting, text, .. } = &mut self.prompts[index];
                let prompt = &waiting.order.prompt;
                let text = mem::take(text);
                let range = P::tokens(&text)..P::tokens(&text) + tokens;
                let read = range.end == prompt.len();
                let texts = if read { waiting.order.texts.len() } else { 1 };
                NextTokens { text, tokens: prompt[range].to_vec(), read, texts }
            }
        }
    }

    /// Draws the texts' next tokens from what a pass gave.
    fn apply(&mut self, pieces: &[Piece], reads: Vec<RowTensor>) {
        let mut reads = reads.into_iter();
        for piece in pieces {
            let mut drawn = 0;
            match *piece {
                Piece::Text(index) => {
                    if let Some(logits) = reads.next() {
                        drawn += self.texts[index].draw(logits.values());
                    }
                }
                Piece::Prompt { index, .. } => {
                    let prompt = &mut self.prompts[index];
                    if P::tokens(&prompt.text) == prompt.waiting.order.prompt.len()
                        && let Some(logits) = reads.next()
                    {
                        for mut text in prompt.begin(&mut self.pages, &self.orders.limits) {
                            drawn += text.draw(logits.values());
                            self.texts.push(text);
                        }
                    }
                }
            }
            self.orders.metrics.generated(drawn);
        }
    }

    fn fail(&mut self, piece: Piece, error: &GenerateError) {
        match piece {
            Piece::Text(index) => {
                let text = &mut self.texts[index];
                text.sender.send(Err(error.clone()));
                text.over = true;
            }
            Piece::Prompt { index, .. } => {
                let prompt = &mut self.prompts[index];
                prompt.waiting.senders.iter().for_each(|sender| sender.send(Err(error.clone())));
                prompt.progress = Progress::Failed;
            }
        }
    }

    /// Drops what is over and what nobody waits for any more.
    fn drop_finished(&mut self) {
        for text in mem::take(&mut self.texts) {
            if !text.over && !text.sender.is_closed() {
                self.texts.push(text);
                continue;
            }
            if !text.over && text.sender.is_given_up() {
                self.orders.metrics.generation_cancelled();
            }
            self.pages.end(text.text);
            if let Some(start) = Rc::into_inner(text.start) {
                self.promised -= start.promised;
            }
        }
        for prompt in mem::take(&mut self.prompts) {
            let abandoned = prompt.waiting.is_abandoned();
            match prompt.progress {
                Progress::Reading if !abandoned => self.prompts.push_back(prompt),
                Progress::Read => {}
                Progress::Reading | Progress::Failed => {
                    if abandoned {
                        self.orders.metrics.generation_cancelled();
                    }
                    self.promised -= prompt.waiting.order.blocks(&self.orders.limits);
                    self.pages.end(prompt.text);
                }
            }
        }
        self.pages.tidy();
    }
}

impl<T: Default> Prompt<T> {
    /// Hands the prompt over to its texts.
    fn begin<P: Pages<Text = T>>(&mut self, pages: &mut P, limits: &GenerationLimits) -> Vec<Text<T>> {
        self.progress = Progress::Read;
        let order = &self.waiting.order;
        let start = Rc::new(Start {
            max_tokens: order.max_tokens.get(),
            ends: Arc::clone(&order.ends),
            promised: order.blocks(limits),
        });
        let divided = pages.divide(&order.prompt, mem::take(&mut self.text), order.texts.len());
        let parts = order.texts.iter().zip(self.waiting.senders.drain(..)).zip(divided);
        let texts = parts.map(|((sampling, sender), text)| Text {
            start: Rc::clone(&start),
            text,
            sampler: Sampler::new(*sampling),
            sender,
            last: 0,
            drawn: 0,
            over: false,
        });
        texts.collect()
    }
}

impl<T> Text<T> {
    /// Draws the next token and tells of it; gives how many were drawn, none when the model ends the text.
    fn draw(&mut self, logits: &[f32]) -> usize {
        let Some(picked) = self.sampler.pick(logits) else {
            self.sender.send(Err(GenerateError::NotFinite));
            self.over = true;
            return 0;
        };
        if self.start.ends.contains(&picked.token) {
            self.end(Finish::End);
            return 0;
        }
        self.last = picked.token;
        self.drawn += 1;
        self.sender.send(Ok(Event::Token(picked)));
        if self.drawn == self.start.max_tokens {
            self.end(Finish::Length);
        }
        1
    }

    fn end(&mut self, finish: Finish) {
        // That nobody listens any more is no error.
        self.sender.send(Ok(Event::End(finish)));
        self.over = true;
    }
}
