//! ConvNeXt (Liu et al. 2022) and ConvNeXt V2 (Woo et al. 2023): classifiers of convolutions, whose states are images of
//! ever fewer and wider pixels.

use super::{
    encoder::Gate,
    image::{ImageFamily, ImageModel, ImageTrunk},
    towers::{activation, check_colours},
};
use crate::{
    config::{Config, MOST_LAYERS},
    problems::Problems,
};

/// A classifier of convolutions. Each of its stages after the first halves both sides of the image.
#[derive(Debug, Clone)]
pub(crate) struct ConvNext {
    /// What its tensors' names begin with.
    pub(crate) name: &'static str,
    /// The side of the square of pixels that becomes one of the first stage.
    pub(crate) patch: usize,
    /// The stages, at least one.
    pub(crate) stages: Vec<Stage>,
    /// The MLP's activation.
    pub(crate) activation: Gate,
    /// What keeps the last norm's root from 0.
    pub(crate) epsilon: f64,
    /// What tells the channels of a layer apart.
    pub(crate) contrast: Contrast,
    /// How many labels the classifier has.
    pub(crate) labels: usize,
}

/// What a layer does so that no channel says what others say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contrast {
    /// Nothing.
    Plain,
    /// Its output is scaled, channel by channel, before it is added.
    Scaled,
    /// In the middle of its MLP each channel is weighed by its norm over the whole image, next to the mean of these norms:
    /// V2's global response normalisation.
    Response,
}

/// Layers of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    /// How many channels a pixel has.
    pub(crate) width: usize,
    /// How many layers.
    pub(crate) layers: usize,
}

/// Each halves the sides of what it sees.
const MOST_STAGES: usize = 12;

pub(super) const FAMILY: ImageFamily = ImageFamily {
    model_type: "convnext",
    classes: &["ConvNextForImageClassification"],
    later_names: &[],
    read: read_first,
};

pub(super) const FAMILY_V2: ImageFamily = ImageFamily {
    model_type: "convnextv2",
    classes: &["ConvNextV2ForImageClassification"],
    later_names: &[],
    read: read_second,
};

impl ConvNext {
    /// The side of the square of pixels that becomes one of the last stage.
    pub(crate) fn stride(&self) -> usize {
        self.patch << (self.stages.len() - 1)
    }

    /// How many channels a pixel of the last stage has.
    pub(crate) fn width(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.width)
    }
}

fn read_first(config: &Config, labels: usize, problems: &mut Problems) -> Option<ImageModel> {
    let scaled =
        config.get("layer_scale_init_value").is_none_or(|value| value.as_f64().is_some_and(|value| value > 0.0));
    let contrast = if scaled { Contrast::Scaled } else { Contrast::Plain };
    read(config, ("convnext", contrast), labels, problems)
}

fn read_second(config: &Config, labels: usize, problems: &mut Problems) -> Option<ImageModel> {
    read(config, ("convnextv2", Contrast::Response), labels, problems)
}

fn read(
    config: &Config,
    (name, contrast): (&'static str, Contrast),
    labels: usize,
    problems: &mut Problems,
) -> Option<ImageModel> {
    // It takes images of any size, and which its preprocessor makes is the preprocessor's to say.
    config.know(&[
        "drop_path_rate",
        "image_size",
        "out_features",
        "out_indices",
        "stage_names",
        "id2label",
        "num_labels",
    ]);
    check_colours(config, problems);
    let patch = config.count_or("patch_size", 4, problems);
    let widths = config.counts_or("hidden_sizes", &[96, 192, 384, 768], problems);
    let layers = config.counts_or("depths", &[3, 3, 9, 3], problems);
    let count = config.count_or("num_stages", 4, problems);
    let epsilon = config.positive_or("layer_norm_eps", 1e-12, problems);
    let activation = activation(config, "gelu", problems);
    let (widths, layers, count) = (widths?, layers?, count?);
    if widths.len() != count || layers.len() != count {
        return problems.add(format!(
            "config.json: num_stages is {count}, and there are {} hidden_sizes and {} depths; write one of each for a stage",
            widths.len(),
            layers.len()
        ));
    }
    // No sum of so many numbers, each at most 2²⁴, overflows.
    if layers.iter().sum::<usize>() > MOST_LAYERS || count > MOST_STAGES {
        return problems.add(format!(
            "config.json: depths are {layers:?}, and no model has more than {MOST_LAYERS} layers in {MOST_STAGES} stages"
        ));
    }
    let stages = widths.into_iter().zip(layers).map(|(width, layers)| Stage { width, layers }).collect();
    let model = ConvNext { name, patch: patch?, stages, activation: activation?, epsilon: epsilon?, contrast, labels };
    Some(ImageModel::of_images(ImageTrunk::ConvNext(model)))
}
