//! JPEG by libjpeg: Pillow decodes with it, and no other decoder gives the same numbers to the bit.
//!
//! Others differ by up to four values of 255 where colours are kept for every second pixel alone, as in most photographs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use mozjpeg::Decompress;

use super::decode::DecodeError;

/// The most scans of a progressive file: encoders write about ten, and each is a pass over all pixels.
const MOST_SCANS: usize = 100;

/// Looks at what a file says of itself before anything is decoded.
///
/// # Errors
/// When its pixels aren't grey or in colour, it has too many scans, or it breaks off.
pub(super) fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let Header { components, scans } = header(bytes);
    if components.is_some_and(|components| components > 3) {
        return Err(DecodeError::Kind("CMYK"));
    }
    // Within what is coded, 0xFF is followed by 0, so that every marker is one.
    let marks = |mark: u8| scans.windows(2).filter(move |pair| *pair == [0xFF, mark]);
    if marks(0xDA).count() > MOST_SCANS {
        return Err(DecodeError::Broken(format!("it has more than {MOST_SCANS} scans")));
    }
    // libjpeg would fill what is missing with grey.
    if marks(0xD9).next_back().is_none() {
        return Err(DecodeError::Broken("it breaks off before its end".to_owned()));
    }
    Ok(())
}

/// The pixels of a file that was checked, whose header tells of so many.
///
/// # Errors
/// When libjpeg gives up on it.
pub(super) fn decode(bytes: &[u8], [width, height]: [u32; 2]) -> Result<RgbImage, DecodeError> {
    let broken = |reason: String| DecodeError::Broken(reason);
    // The library tells of its errors by unwinding. Nothing of what it was doing is used afterwards.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = Decompress::new_mem(bytes)?.rgb()?;
        let size = [decoder.width(), decoder.height()];
        decoder.read_scanlines::<[u8; 3]>().map(|pixels| (size, pixels))
    }));
    let (size, pixels) = decoded
        .map_err(|told| broken(told.downcast_ref::<String>().map_or_else(String::new, Clone::clone)))?
        .map_err(|error| broken(error.to_string()))?;
    let image = RgbImage::from_raw(width, height, pixels.into_flattened());
    // Two readers of one header agree, unless it holds two.
    let agrees = size == [width, height].map(|side| side as usize);
    image.filter(|_| agrees).ok_or_else(|| broken("its headers contradict each other".to_owned()))
}

/// What stands before the first scan, and the scans.
struct Header<'a> {
    /// How many channels the frame header tells of, if there is one.
    components: Option<u8>,
    /// From the first scan on; nothing where there is none.
    scans: &'a [u8],
}

/// Walks over a file's segments, of which one may hold another, smaller picture.
fn header(bytes: &[u8]) -> Header<'_> {
    let mut components = None;
    let mut at = 2;
    while let Some([0xFF, kind]) = bytes.get(at..at + 2) {
        match kind {
            // Fill bytes, and markers without a length.
            0xFF => at += 1,
            0x01 | 0xD0..=0xD9 => at += 2,
            0xDA => return Header { components, scans: bytes.get(at..).unwrap_or_default() },
            _ => {
                // Frame headers: all of this range but tables (C4), a reserved one (C8) and arithmetic conditioning (CC).
                if matches!(kind, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF) {
                    components = components.or(bytes.get(at + 9).copied());
                }
                let length = bytes.get(at + 2..at + 4).map_or(0, |length| u16::from_be_bytes([length[0], length[1]]));
                at += 2 + usize::from(length).max(2);
            }
        }
    }
    Header { components, scans: &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_breaks_off_is_told_from_one_whose_thumbnail_ends() {
        let thumbnail = [0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0, 0];
        let frame = [0xFF, 0xC0, 0, 8, 8, 0, 1, 0, 1, 3];
        let whole = |end: &[u8]| [&[0xFF, 0xD8], &thumbnail[..], &frame, &[0xFF, 0xDA, 0, 2, 1, 2], end].concat();
        assert!(check(&whole(&[0xFF, 0xD9])).is_ok());
        assert!(check(&whole(&[])).unwrap_err().to_string().contains("breaks off"));
        let scans = [0xFF, 0xDA, 0, 2, 1].repeat(MOST_SCANS);
        assert!(check(&whole(&[&scans[..], &[0xFF, 0xD9]].concat())).unwrap_err().to_string().contains("scans"));
    }
}
