//! One session's rows: the last tokens of all texts, and pieces of prompts.

use std::{
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use karat_runtime::{DecoderExecutor, DecoderRow, DecoderRowOutput, Read, ReadAt, RuntimeError, Span};

use super::{
    memory::Memory,
    order::GenerationLimits,
    orders::{Orders, WaitingOrder},
    sampling::Sampler,
    slots::{BLOCK, Lease, blocks},
    stream::{Event, Finish, GenerateError, Sender},
};

/// What one thread holds.
pub(super) struct Worker<'a> {
    orders: &'a Orders,
    executor: Box<dyn DecoderExecutor>,
    memory: Memory,
    prompts: VecDeque<Prompt>,
    texts: Vec<Text>,
    /// How many blocks all that was admitted may come to take.
    promised: usize,
}

/// A prompt that is being read.
struct Prompt {
    waiting: WaitingOrder,
    lease: Lease,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Reading,
    /// It was read to its end, and its places belong to its texts.
    Read,
    Failed,
}

/// A prompt that was read, as long as texts go on from it.
struct Start {
    lease: Lease,
    max_tokens: usize,
    ends: Arc<[u32]>,
    promised: usize,
}

/// A text that is being written.
struct Text {
    start: Rc<Start>,
    lease: Lease,
    sampler: Sampler,
    sender: Sender,
    /// The token that was drawn last; it has not been computed yet.
    last: u32,
    /// How many tokens were drawn.
    drawn: usize,
    over: bool,
}

/// A part of a row.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// The last token of the text of that index.
    Text(usize),
    /// The next tokens of the prompt of that index, at least one.
    Prompt { index: usize, tokens: usize },
}

impl<'a> Worker<'a> {
    pub(super) fn new(orders: &'a Orders, executor: Box<dyn DecoderExecutor>) -> Self {
        let memory = Memory::new(executor.shape());
        Self { orders, executor, memory, prompts: VecDeque::new(), texts: Vec::new(), promised: 0 }
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
            let GenerationLimits { texts, tokens, .. } = self.orders.limits;
            let promised = self.promised;
            let next = self
                .orders
                .next(idle, |order| busy + order.texts.len() <= texts && promised + order.blocks() <= blocks(tokens));
            let Some(waiting) = next else { return !idle };
            self.promised += waiting.order.blocks();
            self.prompts.push_back(Prompt { waiting, lease: Lease::default(), progress: Progress::Reading });
        }
    }

    /// The next row: one token of every text, and of prompts as many as there is room for, the oldest first.
    fn plan(&self) -> Vec<Piece> {
        let mut room = self.orders.limits.row.saturating_sub(self.texts.len()).max(BLOCK);
        let mut pieces: Vec<Piece> = (0..self.texts.len()).map(Piece::Text).collect();
        for (index, prompt) in self.prompts.iter().enumerate() {
            let tokens = (prompt.waiting.order.prompt.len() - prompt.lease.tokens()).min(room);
            if tokens == 0 {
                break;
            }
            room -= tokens;
            pieces.push(Piece::Prompt { index, tokens });
        }
        pieces
    }

    /// Runs a row. Where it fails, its pieces are run one by one, so that none takes its neighbours with it.
    fn run(&mut self, pieces: &[Piece]) {
        match (self.attempt(pieces), pieces) {
            (Ok(output), _) => self.apply(pieces, &output),
            (Err(error), [alone]) => self.fail(*alone, &error),
            (Err(error @ GenerateError::Stopped), _) => pieces.iter().for_each(|piece| self.fail(*piece, &error)),
            (Err(_), _) => pieces.iter().for_each(|piece| self.run(&[*piece])),
        }
    }

    fn attempt(&mut self, pieces: &[Piece]) -> Result<DecoderRowOutput, GenerateError> {
        if self.orders.cancellation.is_cancelled() {
            return Err(GenerateError::Stopped);
        }
        let row = self.row(pieces);
        // An executor that panicked is used again: its session is the runtime's, which no Rust panic passes through,
        // and its buffers are rewritten for each row.
        let Self { executor, orders, .. } = self;
        match catch_unwind(AssertUnwindSafe(|| executor.forward(&row, &orders.cancellation))) {
            Ok(Ok(output)) if !output.is_finite() => Err(GenerateError::NotFinite),
            Ok(Ok(output)) => Ok(output),
            Ok(Err(RuntimeError::Cancelled)) => Err(GenerateError::Stopped),
            Ok(Err(error)) => {
                tracing::warn!(%error, pieces = pieces.len(), "a row of texts failed");
                Err(GenerateError::Runtime(Arc::new(error)))
            }
            // The panic's own message went through the panic hook.
            Err(_) => Err(GenerateError::Panicked),
        }
    }

    fn row(&self, pieces: &[Piece]) -> DecoderRow {
        let mut row = DecoderRow { past: self.memory.past(), ..DecoderRow::default() };
        let mut end = 0;
        for piece in pieces {
            let (span, read) = match *piece {
                Piece::Text(index) => {
                    let text = &self.texts[index];
                    let start = &text.start.lease;
                    let span = Span {
                        tokens: vec![text.last],
                        position: start.tokens() + text.lease.tokens(),
                        sees_past: [start.ranges(), text.lease.ranges()].concat(),
                        sees_new: Vec::new(),
                    };
                    (span, true)
                }
                Piece::Prompt { index, tokens } => {
                    let Prompt { waiting, lease, .. } = &self.prompts[index];
                    let prompt = &waiting.order.prompt;
                    let next = lease.tokens()..lease.tokens() + tokens;
                    let span = Span {
                        tokens: prompt[next.clone()].to_vec(),
                        position: next.start,
                        sees_past: lease.ranges(),
                        sees_new: Vec::new(),
                    };
                    (span, next.end == prompt.len())
                }
            };
            end += span.tokens.len();
            row.spans.push(span);
            if read {
                row.reads.push(ReadAt { at: end - 1, output: 0, what: Read::Numbers });
            }
        }
        row.keep.push(0..end);
        row
    }

    /// Keeps what a row computed and draws the texts' next tokens.
    fn apply(&mut self, pieces: &[Piece], output: &DecoderRowOutput) {
        let mut reads = output.reads.iter();
        let mut first = 0;
        for piece in pieces {
            let (lease, tokens) = match *piece {
                Piece::Text(index) => (&mut self.texts[index].lease, 1),
                Piece::Prompt { index, tokens } => (&mut self.prompts[index].lease, tokens),
            };
            for kept in &output.kept {
                self.memory.keep(lease, kept, first..first + tokens);
            }
            first += tokens;
            let mut drawn = 0;
            match *piece {
                Piece::Text(index) => {
                    if let Some(logits) = reads.next() {
                        drawn += self.texts[index].draw(logits.values());
                    }
                }
                Piece::Prompt { index, .. } => {
                    let prompt = &mut self.prompts[index];
                    if prompt.lease.tokens() == prompt.waiting.order.prompt.len()
                        && let Some(logits) = reads.next()
                    {
                        for mut text in prompt.begin() {
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
            self.memory.end(text.lease);
            if let Some(start) = Rc::into_inner(text.start) {
                self.promised -= start.promised;
                self.memory.end(start.lease);
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
                    self.promised -= prompt.waiting.order.blocks();
                    self.memory.end(prompt.lease);
                }
            }
        }
        self.memory.fit();
    }
}

impl Prompt {
    /// Hands the prompt over to its texts.
    fn begin(&mut self) -> Vec<Text> {
        self.progress = Progress::Read;
        let order = &self.waiting.order;
        let start = Rc::new(Start {
            lease: mem::take(&mut self.lease),
            max_tokens: order.max_tokens.get(),
            ends: Arc::clone(&order.ends),
            promised: order.blocks(),
        });
        let senders = self.waiting.senders.drain(..);
        let texts = order.texts.iter().zip(senders).map(|(sampling, sender)| Text {
            start: Rc::clone(&start),
            lease: Lease::default(),
            sampler: Sampler::new(*sampling),
            sender,
            last: 0,
            drawn: 0,
            over: false,
        });
        texts.collect()
    }
}

impl Text {
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
