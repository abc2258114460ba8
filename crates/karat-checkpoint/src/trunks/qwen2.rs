//! Qwen2: queries, keys and values always have a bias; late layers may have a window.

use super::{Decoder, Read, Trunk};
use crate::{config::Config, problems::Problems};

pub(super) const TRUNK: Trunk = Trunk { model_type: "qwen2", class: "Qwen2", read: Read::Decoder(read) };

fn read(config: &Config, problems: &mut Problems) -> Option<Decoder> {
    config.know(&["attention_bias"]);
    if config.is_on("use_mrope") {
        problems.add::<()>("config.json: use_mrope: positions of three axes are those of images, which are not read");
    }
    let window = Window::read(config, problems);
    let plain = Decoder::plain(config, problems)?;
    Some(Decoder { qkv_bias: true, ..window.bound(plain) })
}

/// How far back late layers look.
pub(super) struct Window {
    size: Option<usize>,
    first_layer: u64,
}

impl Window {
    /// The window, if the configuration switches it on.
    pub(super) fn read(config: &Config, problems: &mut Problems) -> Self {
        let size = config.get("sliding_window").and_then(|_| config.count("sliding_window", problems));
        let first_layer = config.get("max_window_layers").and_then(serde_json::Value::as_u64).unwrap_or(28);
        Self { size: size.filter(|_| config.is_on("use_sliding_window")), first_layer }
    }

    /// The trunk within what its layers look back on.
    pub(super) fn bound(self, trunk: Decoder) -> Decoder {
        let used = self.first_layer < trunk.layers as u64;
        trunk.within_window(self.size.filter(|_| used))
    }
}
