//! Images over HTTP, rated by graphs whose scores can be computed by hand: the mean of each channel.

mod checkpoints;
mod fetched;
mod hostile;
mod jobs;
mod limits;
mod rules;
mod scores;

use std::io::Cursor;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::{ImageFormat, Rgb, RgbImage};

use crate::support::{RAW, Repository};

/// Four by four pixels, scaled so that red is from −1 to 1, green from −0.5 to 1.5 and blue from 0 to 1.
const PREPROCESSOR: &str = r#"{
    "do_resize": true, "size": {"height": 4, "width": 4}, "resample": 2, "do_rescale": true,
    "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.25, 0], "image_std": [0.5, 0.5, 1]
}"#;

/// What the graphs make of an image of one colour.
fn means(colour: [u8; 3]) -> [f64; 3] {
    let [red, green, blue] = colour.map(|value| f64::from(value) / 255.0);
    [(red - 0.5) / 0.5, (green - 0.25) / 0.5, blue]
}

/// What `likeness` gives an image of one colour for a prompt of one number.
pub(crate) fn likeness(colour: [u8; 3], number: f64) -> f64 {
    10.0 * cosine(means(colour), [number / 1000.0, 1.0, 0.0]) - 1.0
}

fn cosine(a: [f64; 3], b: [f64; 3]) -> f64 {
    let dot = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The file of an image of one colour.
pub(crate) fn file(colour: [u8; 3], format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    RgbImage::from_pixel(9, 5, Rgb(colour)).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn data(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(bytes))
}

/// An image of one colour as a request writes it.
fn png(colour: [u8; 3]) -> String {
    data(&file(colour, ImageFormat::Png))
}

/// A model that gives an image's channels as objectives.
fn means_manifest(graph: &str) -> String {
    format!(
        "head = {{ multi = {{ objectives = [\"red\", \"green\", \"blue\"] }} }}\n[graph]\nfile = \"{graph}.onnx\"\n\
         [image]\npatch = 4\n"
    )
}

/// A model that compares images with texts.
fn likeness_manifest(head: &str, rules: &str) -> String {
    format!(
        "head = {{ likeness = {head} }}\n{rules}\n[graph]\nfile = \"text_vectors.onnx\"\nimages = \"image_vectors.onnx\"\n\
         [image]\n{RAW}"
    )
}

fn add(repository: &Repository, name: &str, manifest: &str, graphs: &[&str]) {
    repository.add(name, manifest, graphs);
    repository.write(name, "preprocessor_config.json", PREPROCESSOR);
}

/// The models `means`, `means_last`, `likeness` and `sum`.
pub(crate) fn repository() -> Repository {
    let repository = Repository::with_sum();
    add(&repository, "means", &means_manifest("image_means"), &["image_means"]);
    add(&repository, "means_last", &means_manifest("image_means_last"), &["image_means_last"]);
    let likeness = likeness_manifest("{ scale = 10.0, bias = -1.0 }", "");
    add(&repository, "likeness", &likeness, &["text_vectors", "image_vectors"]);
    repository
}
