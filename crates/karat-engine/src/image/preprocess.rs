//! What an image processor of Transformers does to an image: resize, crop, rescale, normalise.

use std::{fs, path::Path};

use karat_runtime::Scale;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::resample::{Filter, Rgb, Window, resize};

/// Prepares images as one `preprocessor_config.json` says.
#[derive(Debug)]
pub(super) struct Preprocess {
    resize: Option<Resize>,
    filter: Filter,
    size: [usize; 2],
    scale: Scale,
}

/// To which size an image is resized before its centre is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// To so many rows and columns, whatever its shape.
    To([usize; 2]),
    /// So that its shorter side has so many pixels, and it keeps its shape.
    Shortest(usize),
}

/// The largest side that an image is resized to or cropped to.
const MOST_SIDE: usize = 4096;

/// Keys that no pixel depends on.
const SILENT: &[&str] = &[
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_valid_processor_keys",
    "_name_or_path",
    "name_or_path",
    "device",
    "disable_grouping",
    "return_tensors",
    "input_data_format",
    "default_to_square",
    "image_seq_length",
    "transformers_version",
    "processor_type",
    "auto_map",
    "use_fast",
    "backend",
];

/// The keys that say what is done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    do_convert_rgb: Option<bool>,
    do_flip_channel_order: Option<bool>,
    do_pad: Option<bool>,
    size: Option<Size>,
    crop_size: Option<Size>,
    crop_pct: Option<f64>,
    resample: Option<Resample>,
    rescale_factor: Option<f64>,
    rescale_offset: Option<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
    data_format: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(
    untagged,
    expecting = "a size must be a number of pixels, {\"height\", \"width\"} or {\"shortest_edge\"}; others are not known"
)]
enum Size {
    Side(usize),
    Sides(Sides),
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sides {
    height: Option<usize>,
    width: Option<usize>,
    shortest_edge: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Resample {
    Number(u64),
    Name(String),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Channels {
    One(f64),
    Each([f64; 3]),
}

impl Channels {
    fn each(self) -> [f64; 3] {
        match self {
            Self::One(value) => [value; 3],
            Self::Each(values) => values,
        }
    }
}

impl Preprocess {
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| {
            format!("can't be read ({error}); copy the file from the model, or name it in image.preprocessor")
        })?;
        Self::parse(&text)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        // What a processor of texts and images writes holds the image processor's part.
        if let Some(part) = value.get_mut("image_processor") {
            value = part.take();
        }
        let kind = ["image_processor_type", "feature_extractor_type"].map(|key| value.get(key).and_then(Value::as_str));
        let kind = kind.into_iter().flatten().next().unwrap_or_default().to_owned();
        let keys: Keys = serde_json::from_value(value).map_err(|error| error.to_string())?;
        keys.build(&kind)
    }

    /// Rows and columns of what comes of every image.
    pub(super) fn size(&self) -> [usize; 2] {
        self.size
    }

    /// What the graph takes for each 8-bit value.
    pub(super) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// The image's pixels, resized and cropped: three values each.
    pub(super) fn apply(&self, image: &Rgb) -> Vec<u8> {
        let [height, width] = self.size;
        let [rows, columns] = match self.resize {
            None => [image.height, image.width],
            Some(Resize::To(size)) => size,
            Some(Resize::Shortest(side)) => shortest(image, side),
        };
        // Where the image is smaller than the crop, what lies outside is black.
        let (down, across) = (Centre::of(rows, height), Centre::of(columns, width));
        let window = Window { rows: down.kept(), columns: across.kept() };
        let kept = resize(image, [rows, columns], self.filter, &window);
        if kept.height == height && kept.width == width {
            return kept.values;
        }
        let mut values = vec![0; height * width * 3];
        for (row, line) in kept.values.chunks_exact((kept.width * 3).max(1)).enumerate() {
            let start = ((row + down.before) * width + across.before) * 3;
            values[start..start + line.len()].copy_from_slice(line);
        }
        values
    }
}

/// Rows and columns of an image whose shorter side becomes `side`; what is behind the point is dropped, as in Python.
fn shortest(image: &Rgb, side: usize) -> [usize; 2] {
    let (short, long) = (image.height.min(image.width), image.height.max(image.width));
    let long = side * long / short;
    if image.height <= image.width { [side, long] } else { [long, side] }
}

/// The centre of an axis.
struct Centre {
    start: usize,
    length: usize,
    /// How much lies before the axis begins.
    before: usize,
}

impl Centre {
    /// The middle `wanted` of `length`.
    fn of(length: usize, wanted: usize) -> Self {
        if length >= wanted {
            Self { start: (length - wanted) / 2, length: wanted, before: 0 }
        } else {
            Self { start: 0, length, before: (wanted - length).div_ceil(2) }
        }
    }

    fn kept(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.length
    }
}

impl Keys {
    fn build(self, kind: &str) -> Result<Preprocess, String> {
        let unknown: Vec<&str> = self
            .others
            .iter()
            .filter(|(key, value)| !SILENT.contains(&key.as_str()) && !off(value))
            .map(|(key, _)| key.as_str())
            .collect();
        if !unknown.is_empty() {
            return Err(format!(
                "{} could change a pixel and is not known; karat prepares images as CLIP, SigLIP, ViT and ConvNeXt do, \
                 and neither video nor the images of vision-language decoders",
                unknown.join(", ")
            ));
        }
        if self.do_pad == Some(true) || self.rescale_offset == Some(true) {
            return Err("do_pad and rescale_offset are not known; export a model without them".to_owned());
        }
        if self
            .data_format
            .as_deref()
            .is_some_and(|format| format != "channels_first" && format != "ChannelDimension.FIRST")
        {
            return Err("data_format is not \"channels_first\"; remove the key: the graph's shape says it".to_owned());
        }
        let square = ["SiglipImage", "ViT", "Deit", "DeiT", "Beit"].iter().any(|name| kind.starts_with(name));
        let fraction = kind.starts_with("ConvNext");
        let (resize, size) = self.sizes(square, fraction)?;
        let scale = self.scale()?;
        Ok(Preprocess { resize, filter: self.filter(fraction)?, size, scale })
    }

    /// To which size an image is resized, and the size of its centre that is kept.
    fn sizes(&self, square: bool, fraction: bool) -> Result<(Option<Resize>, [usize; 2]), String> {
        let wanted = |key: &str, size: Option<Size>| match size {
            Some(Size::Side(side)) => Ok([side, side]),
            Some(Size::Sides(Sides { height: Some(height), width: Some(width), shortest_edge: None })) => {
                Ok([height, width])
            }
            _ => Err(format!("{key} must say height and width")),
        };
        let edge = match self.size {
            Some(Size::Sides(Sides { shortest_edge: Some(edge), height: None, width: None })) => Some(edge),
            Some(Size::Side(edge)) if fraction || (!square && self.do_center_crop.unwrap_or(false)) => Some(edge),
            _ => None,
        };
        let resizes = self.do_resize.unwrap_or(true);
        let crops = self.do_center_crop.unwrap_or(false);
        let (resize, size) = match (resizes, edge) {
            // ConvNeXt's processor takes the centre of a larger image, or of large ones the whole.
            (true, Some(edge)) if fraction && edge < 384 => {
                let part = self.crop_pct.unwrap_or(224.0 / 256.0);
                if !(part > 0.0 && part <= 1.0) {
                    return Err(format!("crop_pct is {part}; it is above 0 and at most 1"));
                }
                (Some(Resize::Shortest((edge as f64 / part) as usize)), [edge, edge])
            }
            (true, Some(edge)) if fraction => (Some(Resize::To([edge, edge])), [edge, edge]),
            (true, Some(edge)) if crops => (Some(Resize::Shortest(edge)), wanted("crop_size", self.crop_size)?),
            (true, Some(_)) => {
                return Err("size has a shortest_edge and nothing is cropped, so that images would differ in size; \
                     write height and width, or do_center_crop with crop_size"
                    .to_owned());
            }
            (true, None) => {
                let size = wanted("size", self.size)?;
                (Some(Resize::To(size)), if crops { wanted("crop_size", self.crop_size)? } else { size })
            }
            (false, _) if crops => (None, wanted("crop_size", self.crop_size)?),
            (false, _) => return Err("neither do_resize nor do_center_crop gives images one size".to_owned()),
        };
        let resized = match resize {
            Some(Resize::To([height, width])) => vec![height, width],
            Some(Resize::Shortest(side)) => vec![side],
            None => Vec::new(),
        };
        if resized.iter().chain(&size).any(|side| !(1..=MOST_SIDE).contains(side)) {
            return Err(format!("sizes must be from 1 to {MOST_SIDE} pixels"));
        }
        Ok((resize, size))
    }

    fn filter(&self, fraction: bool) -> Result<Filter, String> {
        let unknown = |written: &dyn std::fmt::Display| {
            format!(
                "resample is {written}; write Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming"
            )
        };
        match &self.resample {
            Some(Resample::Number(number)) => Filter::of(*number).ok_or_else(|| unknown(number)),
            Some(Resample::Name(name)) => match name.to_ascii_lowercase().as_str() {
                "nearest" => Ok(Filter::Nearest),
                "lanczos" => Ok(Filter::Lanczos),
                "bilinear" => Ok(Filter::Bilinear),
                "bicubic" => Ok(Filter::Bicubic),
                "box" => Ok(Filter::Box),
                "hamming" => Ok(Filter::Hamming),
                _ => Err(unknown(name)),
            },
            None if fraction => Ok(Filter::Bilinear),
            None if self.do_resize == Some(false) => Ok(Filter::Nearest),
            None => Err("resample is missing; write 3 for bicubic as CLIP, 2 for bilinear as ViT".to_owned()),
        }
    }

    fn scale(&self) -> Result<Scale, String> {
        let factor = match self.do_rescale.unwrap_or(true) {
            true => self.rescale_factor.unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let (mean, deviation) = match self.do_normalize.unwrap_or(true) {
            true => match (self.image_mean, self.image_std) {
                (Some(mean), Some(deviation)) => (mean.each(), deviation.each()),
                _ => return Err("image_mean and image_std are missing; write three numbers each".to_owned()),
            },
            false => ([0.0; 3], [1.0; 3]),
        };
        let scale = Scale::new(factor, mean, deviation, self.do_flip_channel_order.unwrap_or(false));
        scale.ok_or_else(|| "rescale_factor, image_mean and image_std must be finite, and image_std not 0".to_owned())
    }
}

/// Whether a key that isn't known says that nothing is to be done.
fn off(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
}
