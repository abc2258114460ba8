//! From a file's bytes to pixels: bounded before anything is decoded, and turned upright.
//!
//! What `Image.open(…)`, `exif_transpose` and `convert("RGB")` make of a file in Pillow. Kinds of pixels that Pillow
//! reads otherwise than any rule says are refused rather than read in a third way.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageDecoder, ImageError as LibraryError, ImageFormat, ImageReader, Limits};

use super::{jpeg, resample::Rgb};

/// The most pixels of an image: some 8,000 by 4,000. What is larger is refused before it is decoded.
const MOST_PIXELS: u64 = 1 << 25;
/// The most memory that decoding takes: four channels of 16 bits for the most pixels, and as much again to work with.
const MOST_BYTES: u64 = MOST_PIXELS * 16;

/// Why bytes can't be read as an image.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the image is empty; send the bytes of a PNG, JPEG, WebP or GIF file")]
    Empty,
    /// The bytes are of no format that karat reads.
    #[error("the bytes are none of a PNG, JPEG, WebP or GIF file; convert the image to one of these")]
    Format,
    /// The header says that there are too many pixels.
    #[error("the image has {width} x {height} pixels, and at most {MOST_PIXELS} are decoded; send a smaller one")]
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The pixels are of a kind that programs convert in different ways.
    #[error("the image's pixels are {0}, which every program converts to RGB in its own way; convert it yourself")]
    Kind(&'static str),
    /// The file is broken.
    #[error("the image can't be decoded: {0}; send the whole file, undamaged")]
    Broken(String),
}

/// Decodes the (first) image of a file, and turns it as its EXIF orientation says.
///
/// # Errors
/// When the bytes are no image, a broken one, or one with too many pixels.
pub(super) fn decode(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let broken = |error: LibraryError| DecodeError::Broken(error.to_string());
    let mut reader = ImageReader::new(Cursor::new(bytes));
    let format = image::guess_format(bytes).map_err(|_| DecodeError::Format)?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP | ImageFormat::Gif) {
        return Err(DecodeError::Format);
    }
    if format == ImageFormat::Jpeg {
        jpeg::check(bytes)?;
    }
    reader.set_format(format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::Empty);
    }
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    let grey16 = matches!(decoder.color_type(), ColorType::L16 | ColorType::La16);
    if grey16 {
        return Err(DecodeError::Kind("grey of 16 bits"));
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let mut decoded = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, [width, height])?.into(),
        _ => DynamicImage::from_decoder(decoder).map_err(broken)?,
    };
    decoded.apply_orientation(orientation);
    Ok(rgb(decoded))
}

/// The memory that decoding an image takes, as its header says; 0 where it says nothing.
pub(crate) fn decoded_bytes(bytes: &[u8]) -> usize {
    // Decoded, turned and converted, of four bytes a pixel each.
    const A_PIXEL: u64 = 12;
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok();
    let dimensions = reader.and_then(|reader| reader.into_dimensions().ok());
    let pixels = dimensions.map_or(0, |(width, height)| (u64::from(width) * u64::from(height)).min(MOST_PIXELS));
    usize::try_from(pixels * A_PIXEL).unwrap_or(usize::MAX)
}

/// Three channels of 8 bits: transparency is dropped, as Pillow drops it, and of 16 bits the upper eight are kept.
fn rgb(decoded: DynamicImage) -> Rgb {
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let values = match decoded {
        DynamicImage::ImageRgb16(image) => image.as_raw().iter().map(|value| (value >> 8) as u8).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|pixel| [0, 1, 2].map(|channel| (pixel.0[channel] >> 8) as u8)).collect()
        }
        other => other.into_rgb8().into_raw(),
    };
    Rgb { height, width, values }
}
