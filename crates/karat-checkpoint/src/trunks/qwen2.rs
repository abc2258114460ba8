//! Qwen2: queries, keys and values always have a bias; late layers may have a window.

use super::{Decoder, Read, Trunk};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk =
    Trunk { model_type: "qwen2", class: "Qwen2", read: Read::Decoder(read), defaults: &[("sliding_window", 4096)] };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    config.know(&["attention_bias"]);
    if config.is_on("use_mrope") {
        problems.add::<()>("config.json: use_mrope: positions of three axes are those of images, which are not read");
    }
    let window = window(config, problems);
    let plain = Decoder::plain(config, problems)?;
    late(Decoder { qkv_bias: true, ..plain }, window?, config, problems)
}

/// The window, if the configuration switches it on.
pub(super) fn window(config: &Config, problems: &mut Problems) -> Option<Option<usize>> {
    config.know(&["max_window_layers"]);
    let window = config.window("sliding_window", problems)?;
    Some(window.filter(|_| config.is_on("use_sliding_window")))
}

/// The trunk with a window in the layers from `max_window_layers` on.
pub(super) fn late(trunk: Decoder, window: Option<usize>, config: &Config, problems: &mut Problems) -> Option<Decoder> {
    let first = config.get("max_window_layers").and_then(serde_json::Value::as_u64).unwrap_or(28);
    trunk.within(window, config, problems, |layer| layer as u64 >= first)
}
