//! Critiques of a response, letter by letter as they are written.
//!
//! ```text
//! prompt, response ─ ask ─ tokenise ─ generate ─ letters ─ stop strings ─▶ events ─ rating
//! ```
//!
//! What was asked and the critique make a dialogue of their own, which a model then scores like any other (Zhang et al.
//! 2025, "MM-RLHF": critique, then score with the critique as the assistant's turn).

use std::{collections::VecDeque, future::poll_fn, num::NonZeroUsize, sync::Arc, task::Poll, time::Instant};

use karat_rules::domain::{Conversation, Message, ModelName, Role, Sample, TokenizedInput, dialogue_text};

use super::{Engine, ScoreError};
use crate::{
    generate::{Event, Finish, GenerateError, Order, Sampling, Stream},
    repository::{Critic, GraphModel, Model, ModelBody},
    text::{Detokenizer, StopMatcher, StopStrings, TextError, TextOptions, TextPipeline, TooLong, Truncation},
};

/// Prompts that are shorter than this are tokenised at once; longer ones leave the async thread alone.
const INLINE_BYTES: usize = 4 * 1024;

/// A response to criticise.
#[derive(Debug)]
pub struct CritiqueRequest {
    /// The model that writes.
    pub model: ModelName,
    /// The dialogue; its last turn is criticised.
    pub subject: Conversation,
    /// How each critique's tokens are chosen; at least one critique.
    pub texts: Vec<Sampling>,
    /// The most tokens of each; by default as the model's manifest says, and no more than its context has room for.
    pub max_tokens: Option<NonZeroUsize>,
    /// What ends a critique, beside what the manifest names.
    pub stop: StopStrings,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// What happens to critiques.
#[derive(Debug, Clone, PartialEq)]
pub enum CritiqueEvent {
    /// One of them goes on.
    Text {
        /// Which, counted from 0.
        index: usize,
        /// Its next letters, at least one.
        text: String,
    },
    /// One of them is complete.
    Written(Critique),
}

/// A complete critique.
#[derive(Debug, Clone, PartialEq)]
pub struct Critique {
    /// Which, counted from 0.
    pub index: usize,
    /// All of it, perhaps nothing.
    pub text: String,
    /// Why it ended.
    pub ending: Ending,
    /// How many tokens were generated for it.
    pub tokens: usize,
    /// The number that the judge wrote, where the manifest says how to find one and it is there.
    pub rating: Option<f64>,
}

/// Why a critique ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The model ended it.
    End,
    /// It has as many tokens as it may have.
    Length,
    /// A stop string appeared.
    Stop,
}

/// Critiques that are being written. Dropping this ends them.
#[derive(Debug)]
pub struct Critiques {
    model: Arc<Model>,
    graph: Arc<GraphModel>,
    question: String,
    prompt_tokens: usize,
    writing: Vec<Writing>,
    ready: VecDeque<CritiqueEvent>,
    deadline: Option<Instant>,
}

/// One critique on its way.
#[derive(Debug)]
struct Writing {
    stream: Stream,
    /// Unset once the text is complete.
    letters: Option<(Detokenizer, StopMatcher)>,
    text: String,
    tokens: usize,
}

impl Engine {
    /// Begins to write critiques of a response.
    ///
    /// # Errors
    /// When the model writes none or takes no requests, the question is too long for it, or too many wait.
    pub async fn critique(&self, request: CritiqueRequest) -> Result<Critiques, ScoreError> {
        let CritiqueRequest { model, subject, texts, max_tokens, stop, deadline } = request;
        let model = self.model(&model)?;
        let graph = match &model.body {
            ModelBody::Graph(graph) => Arc::clone(graph),
            ModelBody::Composite(_) => return Err(ScoreError::WritesNothing { model: model.name.clone() }),
        };
        let critic = graph.critic.as_ref().ok_or_else(|| ScoreError::WritesNothing { model: model.name.clone() })?;
        let question = critic.definition.request.fill(&[&dialogue_text(subject.context()), subject.response()]);
        let pipeline = graph.pipeline.text().ok_or_else(|| ScoreError::WritesNothing { model: model.name.clone() })?;
        let most = pipeline.max_tokens();
        let input = ask(pipeline, &question, max_tokens.unwrap_or(NonZeroUsize::MIN)).await?;

        let room = most.saturating_sub(input.len());
        let wanted = max_tokens.map_or(critic.definition.max_tokens.get().min(room), NonZeroUsize::get);
        let max_tokens = NonZeroUsize::new(wanted).filter(|wanted| wanted.get() <= room);
        let max_tokens =
            max_tokens.ok_or_else(|| ScoreError::NoRoom { prompt: input.len(), wanted: wanted.max(1), most })?;
        let order = Order { prompt: input.ids().into(), texts, max_tokens, ends: Arc::clone(&critic.ends) };
        let stop = critic.definition.stop.clone().and(stop);
        let writing = critic.generator.submit(order)?.into_iter().map(|stream| Writing {
            stream,
            letters: Some((pipeline.detokenizer(), StopMatcher::new(stop.clone()))),
            text: String::new(),
            tokens: 0,
        });
        Ok(Critiques {
            prompt_tokens: input.len(),
            writing: writing.collect(),
            ready: VecDeque::new(),
            question,
            graph,
            model,
            deadline,
        })
    }
}

/// The question's tokens, up to where the critique begins; at least `wanted` more have to fit.
async fn ask(pipeline: &Arc<TextPipeline>, question: &str, wanted: NonZeroUsize) -> Result<TokenizedInput, ScoreError> {
    let turns = vec![Message { role: Role::User, content: question.to_owned() }];
    // One turn holds everything, the response too: a cut could take away what is criticised.
    let options = TextOptions { truncation: Some(Truncation::Refuse), ..TextOptions::default() };
    let pipeline = Arc::clone(pipeline);
    let run = move || pipeline.tokenize_opening(&turns, 0, options);
    let tokenized = if question.len() <= INLINE_BYTES {
        run()
    } else {
        tokio::task::spawn_blocking(run).await.map_err(|_| ScoreError::Panicked)?
    };
    tokenized.map(|tokenized| tokenized.input).map_err(|source| match source {
        TextError::TooLong(TooLong { tokens, max_tokens, .. }) => {
            ScoreError::NoRoom { prompt: tokens, wanted: wanted.get(), most: max_tokens }
        }
        source => ScoreError::Sample { index: 0, source },
    })
}

/// What comes next of any critique that is under way; `None` when none is.
async fn next_event(writing: &mut [Writing]) -> Option<(usize, Option<Result<Event, GenerateError>>)> {
    poll_fn(|context| {
        let mut idle = true;
        for (index, writing) in writing.iter_mut().enumerate().filter(|(_, writing)| writing.letters.is_some()) {
            idle = false;
            if let Poll::Ready(event) = writing.stream.poll_next(context) {
                return Poll::Ready(Some((index, event)));
            }
        }
        if idle { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

impl Critiques {
    /// The model that writes.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The length of the question in tokens.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Whether the model's manifest says how to find a rating.
    #[must_use]
    pub fn rates(&self) -> bool {
        self.critic().is_some_and(|critic| critic.definition.rating.is_some())
    }

    /// What is scored of a critique: the question, and the critique as the assistant's turn; `None` when it is blank.
    #[must_use]
    pub fn sample(&self, critique: &Critique) -> Option<Sample> {
        Sample::from_prompt(self.question.clone(), critique.text.clone()).ok()
    }

    /// What happens next; `None` once all critiques are complete.
    ///
    /// # Errors
    /// When the model fails, or the deadline passes. Nothing comes after that.
    pub async fn next(&mut self) -> Option<Result<CritiqueEvent, ScoreError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let next = next_event(&mut self.writing);
            let next = match self.deadline {
                None => Ok(next.await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), next).await,
            };
            let Ok(next) = next else { return Some(Err(self.give_up(ScoreError::Expired))) };
            let (index, event) = next?;
            // A stream that ends without an end lost its thread.
            let event = event.unwrap_or(Err(GenerateError::Panicked));
            if let Err(error) = self.take(index, event) {
                return Some(Err(self.give_up(error)));
            }
        }
    }

    fn critic(&self) -> Option<&Critic> {
        self.graph.critic.as_ref()
    }

    fn give_up(&mut self, error: ScoreError) -> ScoreError {
        self.writing.clear();
        error
    }

    /// Turns an event of one critique's tokens into events of its text.
    fn take(&mut self, index: usize, event: Result<Event, GenerateError>) -> Result<(), ScoreError> {
        let failed = |source| match source {
            GenerateError::Stopped => ScoreError::Stopped,
            source => ScoreError::Generate { model: self.model.name.clone(), source },
        };
        let unreadable = |source| ScoreError::Sample { index: 0, source };
        let writing = &mut self.writing[index];
        let Some((mut detokenizer, mut stop)) = writing.letters.take() else { return Ok(()) };
        let (text, ending) = match event.map_err(failed)? {
            Event::Token(picked) => {
                writing.tokens += 1;
                let passed = stop.push(&detokenizer.push(picked.token).map_err(unreadable)?);
                let ending = passed.stopped.then_some(Ending::Stop);
                if ending.is_none() {
                    writing.letters = Some((detokenizer, stop));
                }
                (passed.text, ending)
            }
            Event::End(finish) => {
                let passed = stop.push(&detokenizer.finish().map_err(unreadable)?);
                match finish {
                    _ if passed.stopped => (passed.text, Some(Ending::Stop)),
                    Finish::End => (passed.text + &stop.finish(), Some(Ending::End)),
                    Finish::Length => (passed.text + &stop.finish(), Some(Ending::Length)),
                }
            }
        };
        if !text.is_empty() {
            writing.text.push_str(&text);
            self.ready.push_back(CritiqueEvent::Text { index, text });
        }
        if let Some(ending) = ending {
            // Where a stop string appeared, the generator knows nothing of it yet.
            writing.stream.end();
            let (text, tokens) = (std::mem::take(&mut writing.text), writing.tokens);
            let parser = self.critic().and_then(|critic| critic.definition.rating.as_ref());
            let rating = parser.and_then(|parser| match ending {
                Ending::Length => parser.parse_broken_off(&text),
                Ending::End | Ending::Stop => parser.parse(&text),
            });
            self.ready.push_back(CritiqueEvent::Written(Critique { index, text, ending, tokens, rating }));
        }
        Ok(())
    }
}
