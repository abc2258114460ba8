//! Tokenises the samples of a request: known texts from memory, long ones off the async threads, on all cores.
//!
//! Trainers send the same prompt and response again and again (another aggregation, another epoch), and tokenising
//! costs more than everything else about a score that is known. So what a text became is kept, under the exact text.

use std::{collections::BTreeMap, num::NonZeroUsize, ops::Range, sync::Arc, thread};

use ahash::RandomState;
use karat_rules::domain::{Sample, TokenizedInput};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Facts, ScoreError,
    hashed::Hashed,
    prepare::{Attempts, Key, Known, KnownTexts, Shown, Task, Work, tokenize_sample},
};
use crate::{input, repository::GraphModel, text::TextOptions};

/// The inputs of one graph model: one or, where its head asks several things of a sample, more for each sample.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    all: Vec<Hashed>,
    /// Where each sample's inputs end.
    ends: Vec<usize>,
    /// What is known of each sample's text.
    facts: Vec<Facts>,
}

impl Inputs {
    /// One sample's, tokenised at once and not kept.
    ///
    /// # Errors
    /// As [`TokenCache::tokenize`].
    pub(super) fn of(model: &GraphModel, sample: &Sample) -> Result<Self, ScoreError> {
        let mut inputs = Self::default();
        let known = tokenize_sample(model, 0, sample, TextOptions::default(), &RandomState::new(), None)?;
        inputs.push(&known.inputs, known.facts);
        Ok(inputs)
    }

    /// The input, where there is one alone.
    pub(super) fn only(&self) -> Option<&TokenizedInput> {
        match self.all.as_slice() {
            [input] => Some(input.input()),
            _ => None,
        }
    }

    /// None yet, with room for those of so many samples.
    fn for_samples(samples: usize) -> Self {
        let facts = Vec::with_capacity(samples);
        Self { all: Vec::with_capacity(samples), ends: Vec::with_capacity(samples), facts }
    }

    fn push(&mut self, sample: &[Hashed], facts: Facts) {
        self.all.extend_from_slice(sample);
        self.ends.push(self.all.len());
        self.facts.push(facts);
    }

    /// How many samples they are of.
    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// What is known of each sample's text.
    pub(super) fn facts(&self) -> &[Facts] {
        &self.facts
    }

    /// The position of the sample whose each input is.
    pub(super) fn sample_of_each(&self) -> impl Iterator<Item = usize> + use<> {
        let samples: Vec<usize> = self.samples().map(|range| range.len()).collect();
        samples.into_iter().enumerate().flat_map(|(sample, inputs)| std::iter::repeat_n(sample, inputs))
    }

    /// The inputs of all samples but some.
    pub(super) fn without<T>(inputs: Arc<Self>, refused: &BTreeMap<usize, T>) -> Arc<Self> {
        if refused.is_empty() {
            return inputs;
        }
        let mut kept = Self::default();
        let samples = inputs.samples().enumerate().filter(|(sample, _)| !refused.contains_key(sample));
        samples.for_each(|(sample, range)| kept.push(&inputs.all[range], inputs.facts[sample]));
        Arc::new(kept)
    }

    /// Every input of every sample, in their order.
    pub(super) fn all(&self) -> &[Hashed] {
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

/// Of a text of more bytes the tokens aren't kept: to know it again, an async thread would have to read all of it.
const LONGEST_KEPT: usize = 256 * 1024;

/// The samples of a request as tokens.
pub(super) struct TokenizedSamples {
    /// The inputs of each leaf.
    pub(super) inputs: Vec<Arc<Inputs>>,
    /// The samples that can't be tokenised, by their positions; they are in no leaf's inputs.
    pub(super) refused: BTreeMap<usize, ScoreError>,
}

/// The tokens of texts that were seen, bounded in bytes.
#[derive(Debug, Clone)]
pub(super) struct TokenCache {
    known: KnownTexts,
    hasher: RandomState,
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
            let text = size_of::<Key>() + size_of::<Sample>() + key.sample.text_bytes();
            let inputs: usize = known.inputs.iter().map(|input| size_of_val(input) + input.input().bytes()).sum();
            u32::try_from(text + size_of::<Known>() + inputs).unwrap_or(u32::MAX)
        };
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            known: moka::sync::Cache::builder()
                .max_capacity(bytes)
                .weigher(weigh)
                .build_with_hasher(RandomState::new()),
            hasher: RandomState::new(),
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
        spares_others: bool,
    ) -> Result<TokenizedSamples, ScoreError> {
        if leaves.len() > 1 && samples.iter().any(|sample| matches!(sample, Sample::Tokens(_))) {
            return Err(ScoreError::TokensForSeveral);
        }
        let samples: Vec<Arc<Sample>> = samples.into_iter().map(Arc::new).collect();
        let mut refused = BTreeMap::new();
        let mut inputs: Vec<Arc<Inputs>> = Vec::with_capacity(leaves.len());
        for (position, leaf) in leaves.iter().enumerate() {
            let twin = leaves[..position].iter().position(|other| {
                let plain = other.head.probing().is_none() && leaf.head.probing().is_none();
                plain && Arc::ptr_eq(&other.pipeline, &leaf.pipeline)
            });
            inputs.push(match twin {
                Some(twin) => Arc::clone(&inputs[twin]),
                None => Arc::new(self.tokenize_for(leaf, &samples, options, spares_others, &mut refused).await?),
            });
        }
        let inputs = inputs.into_iter().map(|inputs| Inputs::without(inputs, &refused)).collect();
        Ok(TokenizedSamples { inputs, refused })
    }

    /// The inputs of one leaf; of a sample that is refused there are none.
    async fn tokenize_for(
        &self,
        leaf: &Arc<GraphModel>,
        samples: &[Arc<Sample>],
        options: TextOptions,
        spares_others: bool,
        refused: &mut BTreeMap<usize, ScoreError>,
    ) -> Result<Inputs, ScoreError> {
        let shown = Shown { known: self.known.clone(), model: leaf.id() };
        let compares = leaf.head.probing().is_some();
        let key = |sample: &Arc<Sample>| {
            let is_shown = compares && matches!(**sample, Sample::Picture(_));
            let kept = !is_shown && sample.text_bytes() <= LONGEST_KEPT;
            kept.then(|| Key { model: leaf.id(), options, sample: remembered(sample) })
        };
        let cost =
            |sample: &Sample| input::work(sample, |image| compares && shown.known.contains_key(&shown.key(image)));
        let found: Vec<_> = samples.iter().map(|sample| self.known.get(&key(sample)?)).collect();
        let missing = || {
            let unknown =
                found.iter().enumerate().filter(|(index, known)| known.is_none() && !refused.contains_key(index));
            unknown.map(|(index, _)| index)
        };
        let work: Vec<Work> = missing()
            .map(|index| Work { index, sample: Arc::clone(&samples[index]), cost: cost(&samples[index]) })
            .collect();
        let indices: Vec<usize> = missing().collect();
        let task = Task { model: Arc::clone(leaf), options, spares_others, shown, hasher: self.hasher.clone() };
        let fresh = if work.iter().map(|work| work.cost).sum::<usize>() <= INLINE_BYTES {
            task.run(work, || true)?
        } else {
            self.tokenize_on_all_cores(&task, work).await?
        };
        // As many were tokenised as were missing.
        let mut fresh: BTreeMap<usize, _> = indices.into_iter().zip(fresh).collect();

        let mut inputs = Inputs::for_samples(samples.len());
        for (index, (known, sample)) in found.into_iter().zip(samples).enumerate() {
            let known = match (known, fresh.remove(&index)) {
                (Some(known), _) => known,
                (None, Some(Ok(known))) => {
                    if let Some(key) = key(sample) {
                        self.known.insert(key, known.clone());
                    }
                    known
                }
                (None, Some(Err(error))) => {
                    refused.insert(index, error);
                    inputs.push(&[], Facts::default());
                    continue;
                }
                // Another leaf has refused it.
                (None, None) => {
                    inputs.push(&[], Facts::default());
                    continue;
                }
            };
            if known.doubled_beginning {
                leaf.metrics.doubled_beginning();
            }
            inputs.push(&known.inputs, known.facts);
        }
        Ok(inputs)
    }

    /// Cuts the work into as many parts as there are cores, unless that makes them too small to be worth it.
    async fn tokenize_on_all_cores(&self, task: &Task, mut work: Vec<Work>) -> Result<Attempts, ScoreError> {
        // Whoever asked drops this, and what is left of the work is for nobody.
        let wanted = Arc::new(());
        let cost: usize = work.iter().map(|work| work.cost).sum();
        let parts = self.most_cores.min(cost / INLINE_BYTES).clamp(1, work.len().max(1));
        let mut running = Vec::with_capacity(parts);
        let size = work.len().div_ceil(parts);
        while !work.is_empty() {
            let rest = work.split_off(size.min(work.len()));
            let part = std::mem::replace(&mut work, rest);
            let permits = self.permits(&part).await?;
            let (task, wanted) = (task.clone(), Arc::downgrade(&wanted));
            running.push(tokio::task::spawn_blocking(move || {
                let tokenized = task.run(part, || wanted.strong_count() > 0);
                drop(permits);
                tokenized
            }));
        }
        let mut fresh = Vec::new();
        // In their order, so that the first sample that can't be tokenised is the one that is told of.
        for part in running {
            fresh.extend(part.await.map_err(|_| ScoreError::Panicked)??);
        }
        drop(wanted);
        Ok(fresh)
    }

    /// A core for some samples, which are tokenised one after another, and the memory that the longest of them takes.
    /// Permits stay with the work, which outlives a request that is given up.
    async fn permits(&self, work: &[Work]) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), ScoreError> {
        let longest = work.iter().map(|work| work.cost).max().unwrap_or(0);
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
