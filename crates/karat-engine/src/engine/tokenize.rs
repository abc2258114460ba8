//! Tokenises the samples of a request: known texts from memory, long ones off the async threads, on all cores.
//!
//! Trainers send the same prompt and response again and again (another aggregation, another epoch), and tokenising
//! costs more than everything else about a score that is known. So what a text became is kept, under the exact text.

use std::{num::NonZeroUsize, ops::Range, sync::Arc, thread};

use karat_rules::domain::{Sample, TokenizedInput};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ScoreError;
use crate::{
    input,
    repository::{GraphId, GraphModel},
    text::{TextOptions, Tokenized},
};

/// The inputs of one graph model: one or, where its head asks several things of a sample, more for each sample.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    all: Vec<Arc<TokenizedInput>>,
    /// Where each sample's inputs end.
    ends: Vec<usize>,
}

impl Inputs {
    /// One sample's, tokenised at once and not kept.
    ///
    /// # Errors
    /// As [`TokenCache::tokenize`].
    pub(super) fn of(model: &GraphModel, sample: &Sample) -> Result<Self, ScoreError> {
        let mut inputs = Self::default();
        inputs.push(&tokenize_sample(model, 0, sample, TextOptions::default())?.inputs);
        Ok(inputs)
    }

    /// The input, where there is one alone.
    pub(super) fn only(&self) -> Option<&TokenizedInput> {
        match self.all.as_slice() {
            [input] => Some(input),
            _ => None,
        }
    }

    fn push(&mut self, sample: &[Arc<TokenizedInput>]) {
        self.all.extend_from_slice(sample);
        self.ends.push(self.all.len());
    }

    /// Every input of every sample, in their order.
    pub(super) fn all(&self) -> &[Arc<TokenizedInput>] {
        &self.all
    }

    /// Which of them are each sample's, in the order of the request's samples; none of the ranges is empty.
    pub(super) fn samples(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end)
    }
}

/// Texts that are shorter than this together are tokenised at once; longer ones leave the async thread alone.
const INLINE_BYTES: usize = 4 * 1024;

/// Texts of that many bytes are tokenised at a time: a tokenizer takes about 250 times as much memory.
const BYTES_AT_ONCE: usize = 2 * 1024 * 1024;
/// What a permit to tokenise stands for.
const PERMIT_BYTES: usize = 1024;

/// What a text's tokens are kept under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    model: Option<GraphId>,
    options: TextOptions,
    sample: Arc<Sample>,
}

/// What a text became.
#[derive(Debug, Clone)]
struct Known {
    inputs: Arc<[Arc<TokenizedInput>]>,
    doubled_beginning: bool,
}

/// The tokens of texts that were seen, bounded in bytes.
#[derive(Debug, Clone)]
pub(super) struct TokenCache {
    known: moka::sync::Cache<Key, Known>,
    /// One permit a core: more long texts at once would be no faster.
    cores: Arc<Semaphore>,
    /// One permit for [`PERMIT_BYTES`] of text, since each takes many times its own memory.
    memory: Arc<Semaphore>,
    most_cores: usize,
}

impl TokenCache {
    /// A cache of at most `bytes`; 0 keeps nothing.
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |key: &Key, known: &Known| {
            let tokens: usize = known.inputs.iter().map(|input| input.bytes()).sum();
            u32::try_from(key.sample.text_bytes() + size_of::<Key>() + tokens).unwrap_or(u32::MAX)
        };
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            known: moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build(),
            cores: Arc::new(Semaphore::new(cores)),
            memory: Arc::new(Semaphore::new(BYTES_AT_ONCE / PERMIT_BYTES)),
            most_cores: cores,
        }
    }

    /// The memory that known tokens take.
    pub(super) fn bytes(&self) -> u64 {
        self.known.run_pending_tasks();
        self.known.weighted_size()
    }

    /// Tokenises every sample for every graph model, once for all that share a pipeline.
    ///
    /// # Errors
    /// [`ScoreError::Sample`] for the first sample that can't be tokenised or is too long;
    /// [`ScoreError::TokensForSeveral`] when token ids are sent to models with tokenizers of their own.
    pub(super) async fn tokenize(
        &self,
        leaves: &[Arc<GraphModel>],
        samples: Vec<Sample>,
        options: TextOptions,
    ) -> Result<Vec<Arc<Inputs>>, ScoreError> {
        if leaves.len() > 1 && samples.iter().any(|sample| matches!(sample, Sample::Tokens(_))) {
            return Err(ScoreError::TokensForSeveral);
        }
        let samples: Vec<Arc<Sample>> = samples.into_iter().map(Arc::new).collect();
        let mut done: Vec<Arc<Inputs>> = Vec::with_capacity(leaves.len());
        for (position, leaf) in leaves.iter().enumerate() {
            let twin = leaves[..position].iter().position(|other| {
                let plain = other.head.probing().is_none() && leaf.head.probing().is_none();
                plain && Arc::ptr_eq(&other.pipeline, &leaf.pipeline)
            });
            let inputs = match twin {
                Some(twin) => Arc::clone(&done[twin]),
                None => Arc::new(self.tokenize_for(leaf, &samples, options).await?),
            };
            done.push(inputs);
        }
        Ok(done)
    }

    async fn tokenize_for(
        &self,
        leaf: &Arc<GraphModel>,
        samples: &[Arc<Sample>],
        options: TextOptions,
    ) -> Result<Inputs, ScoreError> {
        let key = |sample: &Arc<Sample>| Key { model: leaf.id(), options, sample: remembered(sample) };
        let found: Vec<_> = samples.iter().map(|sample| self.known.get(&key(sample))).collect();
        let missing = || found.iter().enumerate().filter(|(_, known)| known.is_none()).map(|(index, _)| index);
        let bytes: usize = missing().map(|index| input::work(&samples[index])).sum();
        let work: Vec<(usize, Arc<Sample>)> = missing().map(|index| (index, Arc::clone(&samples[index]))).collect();
        let fresh = if bytes <= INLINE_BYTES {
            tokenize_samples(leaf, work, options)?
        } else {
            self.tokenize_on_all_cores(leaf, work, bytes, options).await?
        };

        let mut fresh = fresh.into_iter();
        let mut inputs = Inputs::default();
        for (known, sample) in found.into_iter().zip(samples) {
            let known = match known {
                Some(known) => known,
                None => {
                    // As many were tokenised as were missing.
                    let known = fresh.next().ok_or(ScoreError::Panicked)?;
                    self.known.insert(key(sample), known.clone());
                    known
                }
            };
            if known.doubled_beginning {
                leaf.metrics.doubled_beginning();
            }
            inputs.push(&known.inputs);
        }
        Ok(inputs)
    }

    /// Cuts the work into as many parts as there are cores, unless that makes them too small to be worth it.
    async fn tokenize_on_all_cores(
        &self,
        model: &Arc<GraphModel>,
        mut work: Vec<(usize, Arc<Sample>)>,
        bytes: usize,
        options: TextOptions,
    ) -> Result<Vec<Known>, ScoreError> {
        let parts = self.most_cores.min(bytes / INLINE_BYTES).clamp(1, work.len());
        let mut running = Vec::with_capacity(parts);
        let size = work.len().div_ceil(parts);
        while !work.is_empty() {
            let rest = work.split_off(size.min(work.len()));
            let part = std::mem::replace(&mut work, rest);
            let permits = self.permits(&part).await?;
            let model = Arc::clone(model);
            running.push(tokio::task::spawn_blocking(move || {
                let tokenized = tokenize_samples(&model, part, options);
                drop(permits);
                tokenized
            }));
        }
        let mut fresh = Vec::new();
        // In their order, so that the first sample that can't be tokenised is the one that is told of.
        for part in running {
            fresh.extend(part.await.map_err(|_| ScoreError::Panicked)??);
        }
        Ok(fresh)
    }

    /// A core for some samples, which are tokenised one after another, and the memory that the longest of them takes.
    /// Permits stay with the work, which outlives a request that is given up.
    async fn permits(
        &self,
        work: &[(usize, Arc<Sample>)],
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), ScoreError> {
        let longest = work.iter().map(|(_, sample)| input::work(sample)).max().unwrap_or(0);
        let share = longest.div_ceil(PERMIT_BYTES).clamp(1, BYTES_AT_ONCE / PERMIT_BYTES);
        // Nothing closes the semaphores.
        let core = Arc::clone(&self.cores).acquire_owned().await.map_err(|_| ScoreError::Panicked)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(u32::try_from(share).unwrap_or(u32::MAX));
        Ok((core, memory.await.map_err(|_| ScoreError::Panicked)?))
    }
}

/// A sample to know its tokens by: an image without its bytes.
fn remembered(sample: &Arc<Sample>) -> Arc<Sample> {
    match &**sample {
        Sample::Picture(picture) => Arc::new(Sample::Picture(picture.remembered())),
        _ => Arc::clone(sample),
    }
}

fn tokenize_samples(
    model: &GraphModel,
    work: Vec<(usize, Arc<Sample>)>,
    options: TextOptions,
) -> Result<Vec<Known>, ScoreError> {
    work.into_iter().map(|(index, sample)| tokenize_sample(model, index, &sample, options)).collect()
}

/// What one sample becomes for a model: itself, or what the model's head asks about it.
fn tokenize_sample(
    model: &GraphModel,
    index: usize,
    sample: &Sample,
    options: TextOptions,
) -> Result<Known, ScoreError> {
    let unreadable = |error| ScoreError::unreadable(index, error);
    let tokenized = match model.head.probing() {
        None => vec![model.pipeline.prepare(sample, options).map_err(unreadable)?],
        Some(probing) => {
            let probes = probing.probes(sample).map_err(|source| ScoreError::Probe { index, source })?;
            let tokenized = probes.iter().map(|probe| model.pipeline.prepare_probe(probe, options));
            tokenized.collect::<Result<_, _>>().map_err(unreadable)?
        }
    };
    Ok(Known {
        doubled_beginning: tokenized.iter().any(|tokenized| tokenized.doubled_beginning),
        inputs: tokenized.into_iter().map(|Tokenized { input, .. }| Arc::new(input)).collect(),
    })
}
