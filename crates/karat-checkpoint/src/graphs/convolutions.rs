//! Convolutions.

use super::nodes::{Attribute, Nodes, signed};
use crate::trunks::Piece;

impl Nodes<'_> {
    /// `value` `[n, columns, places]` convolved over its places, as many of which come out, plus a bias; the weight is
    /// `[rows, columns / groups, size]`.
    pub(super) fn convolution(&mut self, piece: &Piece, value: &str, shape: [usize; 3], groups: usize) -> String {
        let weight = self.weight(&format!("{}.weight", piece.tensor), &[], &shape, false);
        let bias = self.weight(&format!("{}.bias", piece.tensor), &[], &shape[..1], false);
        let around = signed(shape[2] / 2);
        let attributes = [("pads", Attribute::Ints(&[around, around])), ("group", Attribute::Int(signed(groups)))];
        self.add_with("Conv", &[value, &weight, &bias], &attributes)
    }

    /// `value` `[n, columns, height, width]` convolved by squares of `side` pixels that lie side by side; the weight is
    /// `[rows, columns, side, side]`.
    pub(super) fn squares(
        &mut self,
        name: &str,
        value: &str,
        [rows, columns]: [usize; 2],
        side: usize,
        bias: bool,
    ) -> String {
        let weight = self.tensor(&format!("{name}.weight"), &[rows, columns, side, side]);
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"), &[rows]));
        let mut inputs = vec![value, &weight];
        inputs.extend(bias.as_deref());
        let stride = [signed(side); 2];
        self.add_with("Conv", &inputs, &[("strides", Attribute::Ints(&stride))])
    }

    /// `value` `[n, channels, height, width]`, each channel by itself convolved by a square around every pixel, whose `side`
    /// is odd; the weight is `[channels, 1, side, side]`.
    pub(super) fn convolution_by_channel(&mut self, name: &str, value: &str, channels: usize, side: usize) -> String {
        let weight = self.tensor(&format!("{name}.weight"), &[channels, 1, side, side]);
        let bias = self.tensor(&format!("{name}.bias"), &[channels]);
        let around = [signed(side / 2); 4];
        let attributes = [("pads", Attribute::Ints(&around)), ("group", Attribute::Int(signed(channels)))];
        self.add_with("Conv", &[value, &weight, &bias], &attributes)
    }
}
