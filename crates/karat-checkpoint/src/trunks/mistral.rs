//! Mistral: every layer forgets what lies further back than its window, where there is one.

use super::{Decoder, Read, Trunk};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "mistral", class: "Mistral", read: Read::Decoder(read) };

/// What Transformers takes where a configuration doesn't say; one that says null has no window.
const WINDOW: usize = 4096;

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let window = match config.get("sliding_window") {
        Some(_) => config.count("sliding_window", problems),
        None if config.holds("sliding_window") => None,
        None => Some(WINDOW),
    };
    Decoder::plain(config, problems).map(|plain| plain.within_window(window))
}
