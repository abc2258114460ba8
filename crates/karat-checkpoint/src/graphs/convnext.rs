//! ConvNeXt as nodes, from `pixel_values` `[batch, 3, height, width]` to one state for each image.
//!
//! States are `[batch, channels, height, width]` between the layers, as convolutions take them; norms and products see
//! the channels last.

use super::{
    nodes::{Attribute, Nodes, signed},
    padded::piece,
};
use crate::trunks::convnext::{ConvNext, Stage};

/// What keeps a root from 0, of all norms but the last.
const EPSILON: f64 = 1e-6;
/// The side of the square that a layer sees of each channel.
const SEEN: usize = 7;
/// How much wider the middle of an MLP is.
const INNER: usize = 4;
/// The side of the square that becomes one pixel of the next stage.
const HALVED: usize = 2;

/// Adds the trunk to a graph, and gives the normed mean of the last state, `[batch, channels]`.
pub(super) fn pooled(nodes: &mut Nodes<'_>, model: &ConvNext) -> String {
    let first = model.stages.first().map_or(0, |stage| stage.width);
    let state = nodes.squares("convnext.embeddings.patch_embeddings", "pixel_values", [first, 3], model.patch, true);
    let mut state = norm(nodes, "convnext.embeddings.layernorm", &state, first);
    let mut before = first;
    for (number, Stage { width, layers }) in model.stages.iter().copied().enumerate() {
        let name = format!("convnext.encoder.stages.{number}");
        if number > 0 {
            let down = format!("{name}.downsampling_layer");
            let normed = norm(nodes, &format!("{down}.0"), &state, before);
            state = nodes.squares(&format!("{down}.1"), &normed, [width, before], HALVED, true);
        }
        for layer in 0..layers {
            state = self::layer(nodes, model, &format!("{name}.layers.{layer}"), &state, width);
        }
        before = width;
    }
    let axes = nodes.integers("pixels", &[2, 3]);
    let mean = nodes.add_with("ReduceMean", &[&state, &axes], &[("keepdims", Attribute::Int(0))]);
    nodes.layer_norm(&piece("convnext.layernorm"), &mean, before, model.epsilon, true)
}

/// A norm over the channels of each pixel.
fn norm(nodes: &mut Nodes<'_>, name: &str, state: &str, width: usize) -> String {
    let last = channels_last(nodes, state);
    let normed = nodes.layer_norm(&piece(name), &last, width, EPSILON, true);
    channels_first(nodes, &normed)
}

fn layer(nodes: &mut Nodes<'_>, model: &ConvNext, name: &str, state: &str, width: usize) -> String {
    let part = |part: &str| format!("{name}.{part}");
    let seen = nodes.convolution_by_channel(&part("dwconv"), state, width, SEEN);
    let seen = channels_last(nodes, &seen);
    let normed = nodes.layer_norm(&piece(&part("layernorm")), &seen, width, EPSILON, true);
    let shape = nodes.add("Shape", &[&normed]);
    let flat = nodes.shape(&[-1, signed(width)]);
    let rows = nodes.add("Reshape", &[&normed, &flat]);
    let inner = nodes.linear(&piece(&part("pwconv1")), &rows, [INNER * width, width], true);
    let inner = nodes.gate(model.activation, &inner);
    let mut outer = nodes.linear(&piece(&part("pwconv2")), &inner, [width, INNER * width], true);
    if model.scaled {
        let scale = nodes.tensor(&part("layer_scale_parameter"), &[width]);
        outer = nodes.add("Mul", &[&outer, &scale]);
    }
    let outer = nodes.add("Reshape", &[&outer, &shape]);
    let outer = channels_first(nodes, &outer);
    nodes.add("Add", &[state, &outer])
}

fn channels_last(nodes: &mut Nodes<'_>, value: &str) -> String {
    nodes.add_with("Transpose", &[value], &[("perm", Attribute::Ints(&[0, 2, 3, 1]))])
}

fn channels_first(nodes: &mut Nodes<'_>, value: &str) -> String {
    nodes.add_with("Transpose", &[value], &[("perm", Attribute::Ints(&[0, 3, 1, 2]))])
}
