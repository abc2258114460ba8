//! What one sample becomes for a model: its own input, or those of everything that the model's head asks about it.

use std::sync::Arc;

use ahash::RandomState;
use karat_rules::domain::{Image, Picture, Probe, Sample};

use super::{Facts, ScoreError, hashed::Hashed, refusal::is_of_one_sample};
use crate::{
    image::{ImageError, Seen},
    input::{InputError, Prepared},
    repository::{GraphId, GraphModel},
    text::TextOptions,
};

/// What a text's tokens are kept under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) model: Option<GraphId>,
    pub(super) options: TextOptions,
    pub(super) sample: Arc<Sample>,
}

/// What a text became.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) inputs: Arc<[Hashed]>,
    pub(super) facts: Facts,
    pub(super) doubled_beginning: bool,
}

/// What texts became.
pub(super) type KnownTexts = moka::sync::Cache<Key, Known, RandomState>;

/// The images that a model was shown which compares them. Each is kept by itself: it may come with another prompt, or be
/// what many others should be like.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) known: KnownTexts,
    pub(super) model: Option<GraphId>,
}

impl Shown {
    /// What an image is kept under.
    pub(super) fn key(&self, image: &Image) -> Key {
        let alone = Picture::new(String::new(), Vec::new(), image.remembered());
        Key { model: self.model, options: TextOptions::default(), sample: Arc::new(Sample::Picture(alone)) }
    }

    fn get(&self, image: &Image) -> Option<Hashed> {
        self.known.get(&self.key(image))?.inputs.first().cloned()
    }

    fn keep(&self, image: &Image, input: &Hashed) {
        let known = Known { inputs: [input.clone()].into(), facts: Facts::default(), doubled_beginning: false };
        self.known.insert(self.key(image), known);
    }
}

/// What was made of samples, in their order.
pub(super) type Attempts = Vec<Result<Known, ScoreError>>;

/// A sample that isn't known.
pub(super) struct Work {
    pub(super) index: usize,
    pub(super) sample: Arc<Sample>,
    /// As [`crate::input::work`].
    pub(super) cost: usize,
}

/// How samples are tokenised.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) model: Arc<GraphModel>,
    pub(super) options: TextOptions,
    pub(super) spares_others: bool,
    pub(super) shown: Shown,
    /// What inputs are hashed by.
    pub(super) hasher: RandomState,
}

impl Task {
    /// What samples become. Where others are spared, one that can't be tokenised stands beside them; else it is the last that
    /// is tried. None is tried any more once they aren't wanted.
    pub(super) fn run(&self, work: Vec<Work>, is_wanted: impl Fn() -> bool) -> Result<Attempts, ScoreError> {
        let attempts = work.into_iter().map(|Work { index, sample, .. }| {
            if !is_wanted() {
                return Err(ScoreError::Expired);
            }
            match tokenize_sample(&self.model, index, &sample, self.options, &self.hasher, Some(&self.shown)) {
                Err(error) if !(self.spares_others && is_of_one_sample(&error)) => Err(error),
                attempt => Ok(attempt),
            }
        });
        attempts.collect()
    }
}

/// What one sample becomes for a model: itself, or what the model's head asks about it.
pub(super) fn tokenize_sample(
    model: &GraphModel,
    index: usize,
    sample: &Sample,
    options: TextOptions,
    hasher: &RandomState,
    shown: Option<&Shown>,
) -> Result<Known, ScoreError> {
    let mut doubled_beginning = false;
    let mut take = |prepared: Result<Prepared, InputError>| {
        let Prepared { tokenized, seen } = prepared.map_err(|error| {
            if let InputError::Image(ImageError::Decode(_)) = error {
                model.metrics.refused_image();
            }
            ScoreError::unreadable(index, error)
        })?;
        if let Some(Seen { pixels, decoding, resizing }) = seen {
            model.metrics.saw(pixels, decoding, resizing);
        }
        doubled_beginning |= tokenized.doubled_beginning;
        Ok::<_, ScoreError>(Hashed::new(Arc::new(tokenized.input), hasher))
    };
    let inputs: Vec<Hashed> = match model.head.probing() {
        None => vec![take(model.pipeline.prepare(sample, options))?],
        Some(probing) => {
            let probes = probing.probes(sample).map_err(|source| ScoreError::Probe { index, source })?;
            let inputs = probes.iter().map(|probe| match (probe, shown) {
                (Probe::Image(image), Some(shown)) => shown.get(image).map_or_else(
                    || {
                        let input = take(model.pipeline.prepare_probe(probe, options))?;
                        shown.keep(image, &input);
                        Ok(input)
                    },
                    Ok,
                ),
                _ => take(model.pipeline.prepare_probe(probe, options)),
            });
            inputs.collect::<Result<_, _>>()?
        }
    };
    Ok(Known { facts: Facts::of(sample), doubled_beginning, inputs: inputs.into() })
}
