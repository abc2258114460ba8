//! What a graph of images takes: which input, in which order, and which number for each 8-bit value.

use std::fmt;

/// How a graph of images is used.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelBinding {
    /// The input that takes the pixels.
    pub pixel_values: String,
    /// The order of its axes.
    pub layout: PixelLayout,
    /// Rows and columns of every image.
    pub size: [usize; 2],
    /// The number that stands for each 8-bit value.
    pub scale: Scale,
    /// The wanted outputs, in the order in which an executor returns them; at least one.
    pub outputs: Vec<String>,
}

/// The order of the axes of a graph's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelLayout {
    /// `[batch, channel, row, column]`, as PyTorch has it.
    ChannelsFirst,
    /// `[batch, row, column, channel]`, as TensorFlow has it.
    ChannelsLast,
}

/// The number that stands for each 8-bit value of each channel.
#[derive(Clone, PartialEq)]
pub struct Scale {
    table: Box<[[f32; 256]; 3]>,
    /// Which channel of red, green and blue stands at each place.
    order: [usize; 3],
}

impl Scale {
    /// `(value · factor − mean) / deviation`, in single precision as image processors compute it; `flipped` puts blue
    /// first afterwards. `None` unless all of it is finite.
    #[must_use]
    pub fn new(factor: f64, mean: [f64; 3], deviation: [f64; 3], flipped: bool) -> Option<Self> {
        let mut table = Box::new([[0.0; 256]; 3]);
        for (channel, numbers) in table.iter_mut().enumerate() {
            for (value, number) in numbers.iter_mut().enumerate() {
                let rescaled = (value as f64 * factor) as f32;
                *number = (rescaled - mean[channel] as f32) / deviation[channel] as f32;
                if !number.is_finite() {
                    return None;
                }
            }
        }
        Some(Self { table, order: if flipped { [2, 1, 0] } else { [0, 1, 2] } })
    }

    /// Writes one image's pixels, three 8-bit values each, red first, into its part of a graph's input.
    pub(crate) fn fill(&self, into: &mut [f32], values: &[u8], layout: PixelLayout) {
        let pixels = values.len() / 3;
        for (place, &channel) in self.order.iter().enumerate() {
            let table = &self.table[channel];
            let values = values.iter().skip(channel).step_by(3);
            match layout {
                PixelLayout::ChannelsFirst => {
                    let plane = into.iter_mut().skip(place * pixels).take(pixels);
                    plane.zip(values).for_each(|(number, value)| *number = table[usize::from(*value)]);
                }
                PixelLayout::ChannelsLast => {
                    let column = into.iter_mut().skip(place).step_by(3);
                    column.zip(values).for_each(|(number, value)| *number = table[usize::from(*value)]);
                }
            }
        }
    }
}

impl fmt::Debug for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.table.each_ref().map(|numbers| [numbers[0], numbers[255]]);
        f.debug_struct("Scale").field("ends", &ends).field("order", &self.order).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_in_the_order_that_the_graph_wants() {
        let plain = Scale::new(1.0, [0.0; 3], [1.0; 3], false).unwrap();
        let flipped = Scale::new(1.0, [1.0, 2.0, 3.0], [1.0, 1.0, 2.0], true).unwrap();
        let mut into = [0.0; 6];
        plain.fill(&mut into, &[1, 2, 3, 4, 5, 6], PixelLayout::ChannelsFirst);
        assert_eq!(into.map(f32::to_bits), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0_f32].map(f32::to_bits));
        flipped.fill(&mut into, &[1, 2, 3, 4, 5, 7], PixelLayout::ChannelsLast);
        assert_eq!(into.map(f32::to_bits), [0.0, 0.0, 0.0, 2.0, 3.0, 3.0_f32].map(f32::to_bits));
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        assert!(Scale::new(1.0, [0.0; 3], [0.0, 1.0, 1.0], false).is_none());
        assert!(Scale::new(f64::INFINITY, [0.0; 3], [1.0; 3], false).is_none());
    }
}
