//! Pillow's `Image.resize` on 8-bit channels, number for number.
//!
//! A pass along the rows and then one along the columns, each weighing the pixels below a filter that is widened by as
//! much as the image shrinks (Pillow's antialiasing), in fixed point with 22 bits behind the point, and rounded to 8
//! bits after each. Only the window that is wanted afterwards is computed: an image of one column, made 224 wide, would
//! be millions of rows high.

#[cfg(target_arch = "x86_64")]
mod wide;

use std::ops::Range;

/// An image of three 8-bit channels, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rgb {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Three values for each pixel, red first.
    pub(super) values: Vec<u8>,
}

/// A filter of Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

/// What is kept of a resized image: its rows and columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

/// The bits behind the point: 32 less those of a value and two of headroom.
const PRECISION: u32 = 32 - 8 - 2;

impl Filter {
    /// The filter that Pillow's number stands for.
    pub(super) fn of(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => return None,
        })
    }

    /// How far the filter reaches, in pixels of the larger image.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => {
                let x = x.abs();
                if x == 0.0 {
                    1.0
                } else if x >= 1.0 {
                    0.0
                } else {
                    let x = x * std::f64::consts::PI;
                    x.sin() / x * (0.54 + 0.46 * x.cos())
                }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// The pixels that one resized pixel is made of: the first, and a weight for each.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of the resized pixels `wanted`, of an axis of `from` pixels that becomes one of `to`.
fn taps(filter: Filter, from: usize, to: usize, wanted: Range<usize>) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let tap = |place: usize| {
        let center = (place as f64 + 0.5) * scale;
        // As in C, where a conversion drops what is behind the point.
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).clamp(0, from as i64) as usize;
        let weights: Vec<f64> = (first..end.max(first))
            .map(|pixel| filter.weight((pixel as f64 - center + 0.5) * (1.0 / stretch)))
            .collect();
        let total: f64 = weights.iter().sum();
        let fixed = weights.iter().map(|weight| {
            let weight = if total == 0.0 { *weight } else { weight / total };
            let scaled = weight * f64::from(1_u32 << PRECISION);
            (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
        });
        Taps { first, weights: fixed.collect() }
    };
    wanted.map(tap).collect()
}

/// Half of what is dropped behind the point, so that dropping it rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// Adds a weighed value to a sum.
#[inline(always)]
fn add(sum: &mut i32, value: u8, weight: i32) {
    // As in C on every machine that Pillow runs on: no sum of weights that are normalised overflows.
    *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
}

/// The 8-bit value that a sum of weighed ones stands for.
#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Resizes an image to `[height, width]` and gives the part of it that lies in `window`.
pub(super) fn resize(image: &Rgb, size: [usize; 2], filter: Filter, window: &Window) -> Rgb {
    if filter == Filter::Nearest {
        return nearest(image, size, window);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "there is no other way to call what is compiled for some processors alone")]
        // SAFETY: this processor has AVX2, as was just asked.
        return unsafe { wide::weigh(image, size, filter, window) };
    }
    weigh(image, size, filter, window, |taps, rows| along_rows(image, taps, rows))
}

/// Both passes, of which `across` is the one along the rows, by the taps of the columns that are kept. It is inlined, to be
/// compiled for the processors that its caller is for.
#[inline(always)]
fn weigh(
    image: &Rgb,
    [height, width]: [usize; 2],
    filter: Filter,
    window: &Window,
    across: impl FnOnce(&[Taps], Range<usize>) -> Rgb,
) -> Rgb {
    let rows = (image.height != height).then(|| taps(filter, image.height, height, window.rows.clone()));
    // The rows that the second pass reads, or that are kept as they are.
    let read = match rows.as_deref() {
        None => window.rows.clone(),
        Some(taps) => {
            let first = taps.iter().map(|tap| tap.first).min().unwrap_or(0);
            first..taps.iter().map(|tap| tap.first + tap.weights.len()).max().unwrap_or(first)
        }
    };
    let across = if image.width == width {
        cut(image, read.clone(), window.columns.clone())
    } else {
        across(&taps(filter, image.width, width, window.columns.clone()), read.clone())
    };
    match rows {
        None => across,
        Some(taps) => along_columns(&across, &taps, read.start),
    }
}

/// A row's values, three for each pixel.
fn line(image: &Rgb, row: usize) -> &[u8] {
    &image.values[row * image.width * 3..(row + 1) * image.width * 3]
}

/// Some rows and columns as they are.
fn cut(image: &Rgb, rows: Range<usize>, columns: Range<usize>) -> Rgb {
    let kept = rows.clone().flat_map(|row| &line(image, row)[columns.start * 3..columns.end * 3]);
    Rgb { height: rows.len(), width: columns.len(), values: kept.copied().collect() }
}

fn along_rows(image: &Rgb, taps: &[Taps], rows: Range<usize>) -> Rgb {
    let mut values = Vec::with_capacity(rows.len() * taps.len() * 3);
    for row in rows.clone() {
        let line = line(image, row);
        for tap in taps {
            let pixels = &line[tap.first * 3..(tap.first + tap.weights.len()) * 3];
            let mut sums = [HALF; 3];
            for (pixel, weight) in pixels.chunks_exact(3).zip(&tap.weights) {
                sums.iter_mut().zip(pixel).for_each(|(sum, value)| add(sum, *value, *weight));
            }
            values.extend(sums.map(rounded));
        }
    }
    Rgb { height: rows.len(), width: taps.len(), values }
}

/// `taps` count rows from the image that `image` begins at row `start` of.
#[inline(always)]
fn along_columns(image: &Rgb, taps: &[Taps], start: usize) -> Rgb {
    let stride = image.width * 3;
    let mut values = Vec::with_capacity(taps.len() * stride);
    let mut sums = vec![HALF; stride];
    for tap in taps {
        sums.fill(HALF);
        // Row after row as they lie in memory, and not value after value.
        let rows = image.values[(tap.first - start) * stride..].chunks_exact(stride.max(1));
        for (row, weight) in rows.zip(&tap.weights) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| add(sum, *value, *weight));
        }
        values.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    Rgb { height: taps.len(), width: image.width, values }
}

fn nearest(image: &Rgb, [height, width]: [usize; 2], window: &Window) -> Rgb {
    let place = |at: usize, from: usize, to: usize| {
        (((at as f64 + 0.5) * (from as f64 / to as f64)) as usize).min(from.saturating_sub(1))
    };
    let mut values = Vec::with_capacity(window.rows.len() * window.columns.len() * 3);
    for row in window.rows.clone() {
        let line = place(row, image.height, height) * image.width;
        for column in window.columns.clone() {
            let pixel = (line + place(column, image.width, width)) * 3;
            values.extend_from_slice(&image.values[pixel..pixel + 3]);
        }
    }
    Rgb { height: window.rows.len(), width: window.columns.len(), values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_with_wide_registers_give_the_same_numbers() {
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..200 {
            let [height, width, rows, columns] = [90, 90, 60, 60].map(|most| random.usize(1..=most));
            let values = (0..height * width * 3).map(|_| random.u8(..)).collect();
            let image = Rgb { height, width, values };
            let window = Window { rows: random.usize(0..rows)..rows, columns: random.usize(0..columns)..columns };
            let filter = [Filter::Box, Filter::Bilinear, Filter::Hamming, Filter::Bicubic, Filter::Lanczos][round % 5];
            let plain = weigh(&image, [rows, columns], filter, &window, |taps, rows| along_rows(&image, taps, rows));
            assert_eq!(resize(&image, [rows, columns], filter, &window), plain, "{filter:?}, {height} x {width}");
        }
    }
}
