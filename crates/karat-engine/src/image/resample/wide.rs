//! The same passes for processors with AVX2: the same numbers, eight pixels at a time.
//!
//! Most of what a large photograph takes beside its decoding is the pass along its rows. A row's channels are taken apart
//! first, so that the eight pixels that one register holds share their weights.

use std::{
    arch::x86_64::{
        __m256i, _mm_add_epi32, _mm_cvtsi64_si128, _mm_cvtsi128_si32, _mm_packs_epi32, _mm_packus_epi16,
        _mm_set1_epi32, _mm_srai_epi32, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepu8_epi32,
        _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_mullo_epi32, _mm256_setr_epi32, _mm256_setzero_si256,
    },
    ops::Range,
};

use super::{Filter, HALF, PRECISION, Rgb, Taps, Window, line};

/// The pixels that are weighed at a time.
const AT_ONCE: usize = 8;

/// [`super::weigh`], with the pass along the rows of this file.
#[target_feature(enable = "avx2")]
pub(super) fn weigh(image: &Rgb, size: [usize; 2], filter: Filter, window: &Window) -> Rgb {
    super::weigh(image, size, filter, window, |taps, rows| along_rows(image, taps, rows))
}

#[target_feature(enable = "avx2")]
fn along_rows(image: &Rgb, taps: &[Taps], rows: Range<usize>) -> Rgb {
    let taps: Vec<(usize, Vec<__m256i>)> = taps.iter().map(|tap| (tap.first, spread(&tap.weights))).collect();
    let mut values = vec![0; rows.len() * taps.len() * 3];
    // Behind a row's last pixel stand some that weigh nothing.
    let mut planes = [0, 1, 2].map(|_| vec![0; image.width + AT_ONCE]);
    for (kept, row) in values.chunks_exact_mut((taps.len() * 3).max(1)).zip(rows.clone()) {
        take_apart(line(image, row), &mut planes);
        for (pixel, (first, weights)) in kept.as_chunks_mut::<3>().0.iter_mut().zip(&taps) {
            *pixel = sum(planes.each_ref().map(|plane| &plane[*first..]), weights);
        }
    }
    Rgb { height: rows.len(), width: taps.len(), values }
}

/// Weights in registers; 0 where the last has more places than there are weights.
#[target_feature(enable = "avx2")]
fn spread(weights: &[i32]) -> Vec<__m256i> {
    let mut registers = Vec::with_capacity(weights.len().div_ceil(AT_ONCE));
    for weights in weights.chunks(AT_ONCE) {
        let mut padded = [0; AT_ONCE];
        padded[..weights.len()].copy_from_slice(weights);
        let [a, b, c, d, e, f, g, h] = padded;
        registers.push(_mm256_setr_epi32(a, b, c, d, e, f, g, h));
    }
    registers
}

/// Writes the channels of a row's pixels into planes of their own.
#[target_feature(enable = "avx2")]
fn take_apart(line: &[u8], [red, green, blue]: &mut [Vec<u8>; 3]) {
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((red, green), blue)) in line.as_chunks::<3>().0.iter().zip(planes) {
        [*red, *green, *blue] = *pixel;
    }
}

/// What the first pixels of three planes are together.
#[target_feature(enable = "avx2")]
fn sum([red, green, blue]: [&[u8]; 3], weights: &[__m256i]) -> [u8; 3] {
    let mut sums = [_mm256_setzero_si256(); 3];
    let planes = red.as_chunks::<AT_ONCE>().0.iter().zip(green.as_chunks().0).zip(blue.as_chunks().0);
    for (((red, green), blue), weights) in planes.zip(weights) {
        for (sum, values) in sums.iter_mut().zip([red, green, blue]) {
            let values = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*values)));
            // What overflows comes round, as in the plain pass.
            *sum = _mm256_add_epi32(*sum, _mm256_mullo_epi32(values, *weights));
        }
    }
    // Neighbours are added until each half of a register holds red, green and blue once.
    let [red, green, blue] = sums;
    let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(red, green), _mm256_hadd_epi32(blue, blue));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let sums = _mm_srai_epi32::<{ PRECISION as i32 }>(_mm_add_epi32(sums, _mm_set1_epi32(HALF)));
    // Ten bits and a sign are left; 16 bits hold them, and the second step clamps to 8.
    let words = _mm_packs_epi32(sums, sums);
    let [red, green, blue, _] = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
    [red, green, blue]
}
