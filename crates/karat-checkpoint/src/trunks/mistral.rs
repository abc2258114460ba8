//! Mistral: every layer forgets what lies further back than its window, where there is one.

use super::{Decoder, Read, Trunk};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "mistral", class: "Mistral", read: Read::Decoder(read), defaults: &[("sliding_window", 4096)] };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let window = config.window("sliding_window", problems);
    let plain = Decoder::plain(config, problems)?;
    Some(plain.within_everywhere(window?))
}
