//! Images: as a client sends them, and as a model sees them.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use sha2::{Digest, Sha256};

/// Tells images apart by the bytes that were sent: their SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageId([u8; 32]);

impl ImageId {
    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An image as a client sent it: a file's bytes, not decoded yet.
///
/// Two are equal when their bytes have one digest, so that a cache can know an image without keeping it.
#[derive(Clone)]
pub struct Image {
    id: ImageId,
    encoded: Arc<[u8]>,
}

/// One grey pixel as a PNG file.
const GREY: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\xdach\0\0\0\x82\0\x81\xdaE\x08;\0\0\0\0IEND\xaeB`\x82";

impl Image {
    /// One grey pixel, to try a model with.
    #[must_use]
    pub fn grey() -> Self {
        Self::new(GREY.to_vec())
    }

    /// The image in a file of these bytes; whether there is one shows when it is decoded.
    #[must_use]
    pub fn new(encoded: Vec<u8>) -> Self {
        Self { id: ImageId(Sha256::digest(&encoded).into()), encoded: encoded.into() }
    }

    /// What tells it from others.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// The file's bytes; none of an image that is only remembered.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The same image, to be recognised and not to be decoded: without its bytes.
    #[must_use]
    pub fn remembered(&self) -> Self {
        Self { id: self.id, encoded: Arc::default() }
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Image {}

impl Hash for Image {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({:?}, {} bytes)", self.id, self.encoded.len())
    }
}

/// An image as a model sees it: resized and cropped, three channels of 8 bits, row by row, red first.
///
/// Two are equal when they were made of one image, whether or not their numbers are still there: a model prepares all
/// images alike.
#[derive(Clone)]
pub struct Pixels {
    id: ImageId,
    height: usize,
    width: usize,
    values: Arc<[u8]>,
}

impl Pixels {
    /// The pixels that the image `id` became; `None` unless there are three values for each.
    #[must_use]
    pub fn new(id: ImageId, [height, width]: [usize; 2], values: Vec<u8>) -> Option<Self> {
        let sound = height > 0 && width > 0 && values.len() == height * width * 3;
        sound.then(|| Self { id, height, width, values: values.into() })
    }

    /// Rows and columns.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Three values for each pixel; none of pixels that are only remembered.
    #[must_use]
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// The same pixels, to be recognised and not to be computed with: without their values.
    #[must_use]
    pub fn remembered(&self) -> Self {
        Self { values: Arc::default(), ..*self }
    }
}

impl PartialEq for Pixels {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.size()) == (other.id, other.size())
    }
}

impl Eq for Pixels {}

impl Hash for Pixels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pixels({:?}, {}x{})", self.id, self.width, self.height)
    }
}

/// An image that is rated, with what it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Picture {
    prompt: String,
    references: Vec<Image>,
    image: Image,
}

impl Picture {
    /// The image and what was asked for: a text, which may be empty, and images that it should be like, which may be
    /// none.
    #[must_use]
    pub fn new(prompt: String, references: Vec<Image>, image: Image) -> Self {
        Self { prompt, references, image }
    }

    /// The text that was asked for; empty where none was.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The images that it should be like.
    #[must_use]
    pub fn references(&self) -> &[Image] {
        &self.references
    }

    /// The image that is rated.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The same, to be recognised and not to be decoded.
    #[must_use]
    pub fn remembered(&self) -> Self {
        Self {
            prompt: self.prompt.clone(),
            references: self.references.iter().map(Image::remembered).collect(),
            image: self.image.remembered(),
        }
    }

    /// The bytes of all its images.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.references.iter().chain([&self.image]).map(|image| image.encoded().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_recognised_without_its_bytes_and_by_nothing_else() {
        let image = Image::new(vec![1, 2, 3]);
        assert_eq!(image, image.remembered());
        assert!(image.remembered().encoded().is_empty());
        assert_ne!(image, Image::new(vec![1, 2, 4]));
    }

    #[test]
    fn pixels_have_three_values_each() {
        let id = Image::new(vec![1]).id();
        assert_eq!(Pixels::new(id, [1, 2], vec![0; 5]), None);
        assert_eq!(Pixels::new(id, [0, 2], Vec::new()), None);
        let pixels = Pixels::new(id, [1, 2], vec![7; 6]).unwrap();
        assert_eq!(pixels, pixels.remembered());
        assert_ne!(Some(pixels), Pixels::new(Image::new(vec![2]).id(), [1, 2], vec![7; 6]));
    }
}
