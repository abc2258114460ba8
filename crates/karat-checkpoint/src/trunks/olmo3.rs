//! OLMo 3: OLMo 2 with a window in three of four layers, whose positions are never stretched.

use super::{Decoder, Read, Trunk, Wording, olmo2};
use crate::{config::Config, problems::Problems, rope::Rope};

pub(super) const TRUNK: Trunk = Trunk {
    model_type: "olmo3",
    class: "Olmo3",
    read: Read::Decoder(read),
    defaults: &[("pad_token_id", 1), ("sliding_window", 4096)],
};

const THETA: f64 = 500_000.0;

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let everywhere = config.positive_or("rope_theta", THETA, problems);
    let ropes = Rope::by_kind(config, [everywhere.unwrap_or(THETA), THETA], problems);
    let window = config.window("sliding_window", problems);
    let olmo = olmo2::worded(config, Wording { ropes: Some(ropes), ..Wording::LLAMA }, problems)?;
    olmo.within(window?, config, problems, |layer| (layer + 1) % 4 != 0)
}
