//! From an image as a client sends it to the pixels that its model was trained on.
//!
//! A model that sees gives nonsense under another resize, crop or order of channels, and its score looks as good as any.
//! So each has one [`ImagePipeline`], built from the `preprocessor_config.json` that lies beside its weights: decode →
//! turn upright → resize → crop, with the numbers that Pillow gives. Rescaling and normalising are a table from each
//! 8-bit value to what the graph takes ([`Scale`]), so that what waits takes one byte a channel.

mod config;
mod decode;
mod jpeg;
mod preprocess;
mod resample;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use config::ImageConfig;
pub use decode::DecodeError;
pub(crate) use decode::decoded_bytes;
use karat_rules::domain::{Image, Pixels, TokenizedInput};
pub use karat_runtime::Scale;
use preprocess::Preprocess;

/// Why an image, or the settings that it is read by, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The preprocessor's file can't be read.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
    /// Text was sent to a model that sees.
    #[error(
        "this model rates images; send {{\"prompt\", \"image\"}}, or messages whose assistant's turn is an image part"
    )]
    Wanted,
    /// A model without a tokenizer is asked about a text.
    #[error("head: it compares images with texts, and the model reads none; add [text] to the manifest")]
    Unread,
    /// Several images were sent to a model that rates one by itself.
    #[error("this model rates one image by itself; leave out the reference images")]
    OneImage,
    /// The bytes are no image that karat takes.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The pixels that a side of one token stands for, where nothing says how large a model's patches are.
const PATCH: usize = 16;

/// An image as its model takes it, and what that took.
#[derive(Debug)]
pub struct Prepared {
    /// The pixels that the graph gets.
    pub input: TokenizedInput,
    /// What that took.
    pub seen: Seen,
}

/// What preparing an image took.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The pixels that were decoded.
    pub pixels: usize,
    /// The time from the file to these.
    pub decoding: Duration,
    /// The time from these to what the graph gets.
    pub resizing: Duration,
}

/// Prepares the images of one model.
#[derive(Debug)]
pub struct ImagePipeline {
    preprocess: Preprocess,
    tokens: usize,
}

impl ImagePipeline {
    /// Builds the pipeline that `config` describes, with its files in `folder`.
    ///
    /// # Errors
    /// When the file is missing, or says something that karat doesn't do as the reference does.
    pub fn load(folder: &Path, config: &ImageConfig) -> Result<Self, ImageError> {
        let path = folder.join(&config.preprocessor);
        let preprocess = Preprocess::load(&path).map_err(|reason| ImageError::Config { path, reason })?;
        let [height, width] = preprocess.size();
        let patch = config.patch.map_or(PATCH, std::num::NonZeroUsize::get);
        let tokens = height.div_ceil(patch) * width.div_ceil(patch);
        Ok(Self { preprocess, tokens })
    }

    /// Rows and columns of every image that the graph gets.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        self.preprocess.size()
    }

    /// How many tokens an image costs.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What the graph takes for each 8-bit value.
    #[must_use]
    pub fn scale(&self) -> &Scale {
        self.preprocess.scale()
    }

    /// Decodes an image and makes of it what the model was trained on.
    ///
    /// # Errors
    /// When the bytes are no image, a broken one, or one with more pixels than karat decodes.
    pub fn prepare(&self, image: &Image) -> Result<Prepared, ImageError> {
        let started = Instant::now();
        let decoded = decode::decode(image.encoded())?;
        let decoding = started.elapsed();
        let pixels = self.preprocess.apply(&decoded);
        let seen = Seen {
            pixels: decoded.height * decoded.width,
            decoding,
            resizing: started.elapsed().saturating_sub(decoding),
        };
        let input = Pixels::new(image.id(), self.size(), pixels);
        // A preprocessor's size holds a pixel at least, and `apply` gives three values for each.
        let input = input.and_then(|pixels| TokenizedInput::of_image(pixels, self.tokens)).ok_or(DecodeError::Empty)?;
        Ok(Prepared { input, seen })
    }
}

#[cfg(test)]
mod tests;
