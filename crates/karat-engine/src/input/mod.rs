//! From a sample to what its model's graphs take: text to `text/`, images to `image/`.

use std::sync::Arc;

use karat_rules::domain::{Image, Picture, Probe, Sample, TokenizedInput};

use crate::{
    image::{self, ImageError, ImagePipeline, Seen},
    text::{TextError, TextOptions, TextPipeline, Tokenized},
};

/// Why a sample can't become an input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Its text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Its image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A sample, or what a head asks about it, as its model takes it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) tokenized: Tokenized,
    /// What preparing it took, if it is an image.
    pub(crate) seen: Option<Seen>,
}

impl From<Tokenized> for Prepared {
    fn from(tokenized: Tokenized) -> Self {
        Self { tokenized, seen: None }
    }
}

impl From<image::Prepared> for Prepared {
    fn from(image::Prepared { input, seen }: image::Prepared) -> Self {
        Self { tokenized: Tokenized { input, doubled_beginning: false }, seen: Some(seen) }
    }
}

/// Prepares the samples of one model.
///
/// Invariant: it takes text, images or both.
#[derive(Debug)]
pub struct InputPipeline {
    text: Option<Arc<TextPipeline>>,
    image: Option<ImagePipeline>,
}

/// A tokenizer takes about so many times as much memory as its text.
const TOKENIZER_SHARE: usize = 250;

/// How much of preparing a sample costs, in bytes of a text that costs as much memory: an image takes what it is when it
/// is decoded, whatever the file is, and nothing where it is known.
pub(crate) fn work(sample: &Sample, is_known: impl Fn(&Image) -> bool) -> usize {
    match sample {
        Sample::Picture(picture) => {
            let images = picture.references().iter().chain([picture.image()]);
            let decoded: usize =
                images.filter(|image| !is_known(image)).map(|image| image::decoded_bytes(image.encoded())).sum();
            picture.prompt().len() + decoded / TOKENIZER_SHARE
        }
        text => text.text_bytes(),
    }
}

impl InputPipeline {
    /// A pipeline of what the model takes; `None` when that is nothing.
    #[must_use]
    pub fn new(text: Option<TextPipeline>, image: Option<ImagePipeline>) -> Option<Self> {
        (text.is_some() || image.is_some()).then(|| Self { text: text.map(Arc::new), image })
    }

    /// How the model's texts are prepared, if it reads any.
    #[must_use]
    pub fn text(&self) -> Option<&Arc<TextPipeline>> {
        self.text.as_ref()
    }

    /// How the model's images are prepared, if it sees any.
    #[must_use]
    pub fn image(&self) -> Option<&ImagePipeline> {
        self.image.as_ref()
    }

    /// The most tokens that an input may have.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        let text = self.text.as_ref().map_or(0, |text| text.max_tokens());
        text.max(self.image.as_ref().map_or(0, ImagePipeline::tokens))
    }

    /// Writes a list of steps as one response, as [`TextPipeline::join_steps`]; `None` when the model reads no steps.
    ///
    /// # Errors
    /// When a step holds what ends one, and would be taken for several.
    pub fn join_steps(&self, steps: &[String]) -> Result<Option<String>, TextError> {
        self.text.as_ref().map_or(Ok(None), |text| text.join_steps(steps))
    }

    /// Turns a sample into an input.
    ///
    /// # Errors
    /// When the model doesn't take such samples, or this one can't be read.
    pub(crate) fn prepare(&self, sample: &Sample, options: TextOptions) -> Result<Prepared, InputError> {
        match (sample, &self.text) {
            (Sample::Picture(picture), _) => self.see_alone(picture),
            (sample, Some(text)) => Ok(text.tokenize_with(sample, options)?.into()),
            (_, None) => Err(ImageError::Wanted.into()),
        }
    }

    /// Turns what a head asks about into an input.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub(crate) fn prepare_probe(&self, probe: &Probe, options: TextOptions) -> Result<Prepared, InputError> {
        match (probe, &self.text) {
            (Probe::Image(image), _) => self.see(image),
            (probe, Some(text)) => Ok(text.tokenize_probe(probe, options)?.into()),
            (_, None) => Err(ImageError::Unread.into()),
        }
    }

    /// An input to try a model with that sees nothing but images.
    ///
    /// # Errors
    /// When the model sees none.
    pub(crate) fn grey(&self) -> Result<TokenizedInput, InputError> {
        Ok(self.see(&Image::grey())?.tokenized.input)
    }

    /// The image of a model that rates it by itself.
    fn see_alone(&self, picture: &Picture) -> Result<Prepared, InputError> {
        let seen = self.see(picture.image())?;
        if picture.references().is_empty() { Ok(seen) } else { Err(ImageError::OneImage.into()) }
    }

    fn see(&self, image: &Image) -> Result<Prepared, InputError> {
        let pipeline = self.image.as_ref().ok_or(TextError::Image)?;
        Ok(pipeline.prepare(image)?.into())
    }
}

impl From<TextPipeline> for InputPipeline {
    fn from(text: TextPipeline) -> Self {
        Self { text: Some(Arc::new(text)), image: None }
    }
}
