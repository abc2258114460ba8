//! Models that see: which families there are, and what is known of each.

use super::{convnext, towers};
use crate::{
    config::Config,
    heads::embedding::EmbeddingHead,
    problems::Problems,
    trunks::{
        convnext::ConvNext,
        towers::{ImageKind, ImageTower, TextTower},
    },
};

/// Every family, in the order of messages.
pub(crate) const IMAGE_TRUNKS: &[ImageFamily] = &[
    towers::CLIP_FAMILY,
    towers::CLIP_VISION_FAMILY,
    towers::SIGLIP_FAMILY,
    towers::SIGLIP_VISION_FAMILY,
    towers::VIT_FAMILY,
    convnext::FAMILY,
    convnext::FAMILY_V2,
];

/// A family of models that see.
pub(crate) struct ImageFamily {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// Its classes, the usual one first.
    pub(crate) classes: &'static [&'static str],
    /// Parts of tensors' names by which later versions of Transformers, and adapters that were trained with them, know
    /// them, each with what a checkpoint has.
    pub(crate) later_names: &'static [(&'static str, &'static str)],
    /// Reads a configuration of this family; the number is how many rows the checkpoint's classifier has.
    pub(crate) read: fn(&Config, usize, &mut Problems) -> Option<ImageModel>,
}

/// A model that sees.
#[derive(Debug, Clone)]
pub(crate) struct ImageModel {
    /// What reads texts, where the model compares images with them.
    pub(crate) text: Option<TextTower>,
    /// What sees.
    pub(crate) image: ImageTrunk,
    /// What makes rewards of an image's embedding, where the model rates an image by itself.
    pub(crate) head: Option<EmbeddingHead>,
}

impl ImageModel {
    /// A model that gives what its trunk does.
    pub(crate) fn of_images(image: ImageTrunk) -> Self {
        Self { text: None, image, head: None }
    }
}

/// What sees.
#[derive(Debug, Clone)]
pub(crate) enum ImageTrunk {
    /// Layers of attention over patches.
    Tower(ImageTower),
    /// Stages of convolutions.
    ConvNext(ConvNext),
}

impl ImageTrunk {
    /// The side of the square of pixels that becomes one place of the last state.
    pub(crate) fn patch(&self) -> usize {
        match self {
            Self::Tower(tower) => tower.patch,
            Self::ConvNext(model) => model.stride(),
        }
    }

    /// How many labels its classifier has; `None` of those that embed images.
    pub(crate) fn labels(&self) -> Option<usize> {
        match self {
            Self::Tower(ImageTower { kind: ImageKind::Classifier(labels), .. }) => Some(*labels),
            Self::Tower(_) => None,
            Self::ConvNext(model) => Some(model.labels),
        }
    }
}
