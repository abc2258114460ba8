//! The `[image]` table of a manifest: how an image becomes the pixels that the model was trained on.

use std::{num::NonZeroUsize, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

/// How images are prepared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// What Transformers' image processors read: resize, crop, rescale and normalise, as `preprocessor_config.json` or
    /// `processor_config.json` says it. A key that isn't known and could change a pixel is refused.
    #[serde(default = "default_preprocessor")]
    pub preprocessor: PathBuf,
    /// The side of the square of pixels that counts as one token in budgets and queues; 16 by default.
    #[serde(default)]
    pub patch: Option<NonZeroUsize>,
}

fn default_preprocessor() -> PathBuf {
    "preprocessor_config.json".into()
}
