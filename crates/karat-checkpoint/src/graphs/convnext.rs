//! ConvNeXt and ConvNeXt V2 as nodes, from pixels `[batch, 3, height, width]` to one state for each image.
//!
//! States are `[batch, channels, height, width]` between the layers, as convolutions take them; norms and products see
//! the channels last.

use super::{
    nodes::{Attribute, Nodes, signed},
    padded::piece,
};
use crate::trunks::convnext::{Contrast, ConvNext, Stage};

/// What keeps a root from 0, of all norms but the last.
const EPSILON: f64 = 1e-6;
/// What keeps a mean of norms from 0.
const LEAST_RESPONSE: f64 = 1e-6;
/// The side of the square that a layer sees of each channel.
const SEEN: usize = 7;
/// How much wider the middle of an MLP is.
const INNER: usize = 4;
/// The side of the square that becomes one pixel of the next stage.
const HALVED: usize = 2;

/// Adds the trunk over `pixels` to a graph, and gives the normed mean of the last state, `[batch, channels]` in 32 bits.
pub(super) fn pooled(nodes: &mut Nodes<'_>, model: &ConvNext, pixels: &str) -> String {
    let first = model.stages.first().map_or(0, |stage| stage.width);
    let part = |part: &str| format!("{}.{part}", model.name);
    let patches = part("embeddings.patch_embeddings");
    let state = nodes.squares(&patches, pixels, [first, 3], model.patch, true);
    let mut state = norm(nodes, &part("embeddings.layernorm"), &state, first);
    let mut before = first;
    for (number, Stage { width, layers }) in model.stages.iter().copied().enumerate() {
        let name = part(&format!("encoder.stages.{number}"));
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
    let state = nodes.widened(&state);
    let axes = nodes.integers("pixels", &[2, 3]);
    let mean = nodes.add_with("ReduceMean", &[&state, &axes], &[("keepdims", Attribute::Int(0))]);
    nodes.layer_norm(&piece(&part("layernorm")), &mean, before, model.epsilon, true)
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
    let mut inner = nodes.gate(model.activation, &inner);
    if model.contrast == Contrast::Response {
        inner = response(nodes, &part("grn"), &inner, &shape, INNER * width);
    }
    let mut outer = nodes.linear(&piece(&part("pwconv2")), &inner, [width, INNER * width], true);
    if model.contrast == Contrast::Scaled {
        let scale = nodes.tensor(&part("layer_scale_parameter"), &[width]);
        outer = nodes.add("Mul", &[&outer, &scale]);
    }
    let outer = nodes.add("Reshape", &[&outer, &shape]);
    let outer = channels_first(nodes, &outer);
    nodes.add("Add", &[state, &outer])
}

/// `rows` `[pixels, width]` of images, each channel weighed by its norm over its image: `shape` is that of the images, the
/// channels last.
fn response(nodes: &mut Nodes<'_>, name: &str, rows: &str, shape: &str, width: usize) -> String {
    let first = nodes.integers("sides", &[0, 1, 2]);
    let sides = nodes.add("Gather", &[shape, &first]);
    // As a shape, the rest; as an axis, the channels.
    let last = nodes.integers("last_axis", &[-1]);
    let whole = nodes.add_with("Concat", &[&sides, &last], &[("axis", Attribute::Int(0))]);
    let state = nodes.add("Reshape", &[rows, &whole]);
    // Half precision holds neither the sums of squares nor so small a number.
    let share = nodes.in_32_bits(&state, |nodes, state| {
        let pixels = nodes.integers("rows_and_columns", &[1, 2]);
        let norms = nodes.add("ReduceL2", &[state, &pixels]);
        let mean = nodes.add("ReduceMean", &[&norms, &last]);
        let least = nodes.number("least_response", LEAST_RESPONSE);
        let mean = nodes.add("Add", &[&mean, &least]);
        nodes.add("Div", &[&norms, &mean])
    });
    let weighed = nodes.add("Mul", &[&state, &share]);
    let weight = nodes.tensor(&format!("{name}.weight"), &[1, 1, 1, width]);
    let bias = nodes.tensor(&format!("{name}.bias"), &[1, 1, 1, width]);
    let scaled = nodes.add("Mul", &[&weighed, &weight]);
    let moved = nodes.add("Add", &[&scaled, &bias]);
    let state = nodes.add("Add", &[&moved, &state]);
    let flat = nodes.shape(&[-1, signed(width)]);
    nodes.add("Reshape", &[&state, &flat])
}

fn channels_last(nodes: &mut Nodes<'_>, value: &str) -> String {
    nodes.add_with("Transpose", &[value], &[("perm", Attribute::Ints(&[0, 2, 3, 1]))])
}

fn channels_first(nodes: &mut Nodes<'_>, value: &str) -> String {
    nodes.add_with("Transpose", &[value], &[("perm", Attribute::Ints(&[0, 3, 1, 2]))])
}
