//! Files that nobody should send: each is a clear refusal or a right score.
//!
//! `KARAT_HOSTILE_IMAGES=5000 cargo test --test it hostile` sends so many; a few hundred otherwise.

use std::{env, io::Cursor};

use fastrand::Rng;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage, RgbaImage, codecs::jpeg::JpegEncoder};
use serde_json::json;

use super::{data, repository};
use crate::support::{Server, root};

/// The file of an image of some kind, and whether it is sound.
fn hostile(random: &mut Rng) -> Vec<u8> {
    let whole = sound(random);
    match random.u8(0..8) {
        // As it is, cut off, or with bytes changed, doubled or put before it.
        0..=2 => whole,
        3 => whole[..random.usize(0..whole.len())].to_vec(),
        4 => {
            let mut broken = whole;
            for _ in 0..random.usize(1..9) {
                let at = random.usize(0..broken.len());
                broken[at] = random.u8(..);
            }
            broken
        }
        5 => [&whole[..whole.len() / 2], &whole[..]].concat(),
        6 => (0..random.usize(0..400)).map(|_| random.u8(..)).collect(),
        // Measures in the header that nothing follows.
        _ => {
            let mut bomb = whole;
            for byte in bomb.iter_mut().skip(8).take(24) {
                if random.bool() {
                    *byte = random.u8(..);
                }
            }
            bomb
        }
    }
}

fn sound(random: &mut Rng) -> Vec<u8> {
    let (width, height) = match random.u8(0..6) {
        0 => (1, 1),
        1 => (20_000, 1 + random.u32(0..3)),
        2 => (1 + random.u32(0..3), 20_000),
        _ => (random.u32(1..80), random.u32(1..80)),
    };
    let colour = random.u8(..);
    let image: DynamicImage = match random.u8(0..5) {
        0 => GrayImage::from_pixel(width, height, [colour].into()).into(),
        1 => RgbaImage::from_pixel(width, height, [colour, 1, 2, 3].into()).into(),
        2 => DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(
            width,
            height,
            [u16::from(colour) << 8, 9, 7].into(),
        )),
        3 => DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(width, height, [u16::from(colour)].into())),
        _ => RgbImage::from_pixel(width, height, [colour, 5, 200].into()).into(),
    };
    let files =
        ["cmyk.jpg", "moving.gif", "moving.webp", "bits.png", "turned7.jpg", "progressive.jpg", "grey_alpha.png"];
    let mut bytes = Vec::new();
    let mut file = Cursor::new(&mut bytes);
    let written = match random.u8(0..5) {
        0 => return std::fs::read(root().join("tests/images").join(files[random.usize(0..files.len())])).unwrap(),
        1 => JpegEncoder::new_with_quality(&mut file, 60).encode_image(&image.into_rgb8()),
        2 => DynamicImage::from(image.into_rgb8()).write_to(&mut file, ImageFormat::Gif),
        3 if width < 16_000 && height < 16_000 => {
            DynamicImage::from(image.into_rgba8()).write_to(&mut file, ImageFormat::WebP)
        }
        _ => image.write_to(&mut file, ImageFormat::Png),
    };
    written.unwrap();
    bytes
}

#[tokio::test]
async fn hostile_images_are_refused_with_a_reason_or_scored() {
    let count: usize = env::var("KARAT_HOSTILE_IMAGES").map_or(300, |count| count.parse().unwrap());
    let mut unserved = crate::support::Unserved::new();
    unserved.limits.body_bytes = 8 << 20;
    unserved.limits.buffered_bytes = 64 << 20;
    unserved.load(&repository()).await.unwrap();
    let server: Server = unserved.serve().await;
    let mut random = Rng::with_seed(7);
    let (mut scored, mut refused) = (0, 0);
    for number in 0..count {
        let bytes = hostile(&mut random);
        let body = json!({"model": "means", "inputs": [{"image": data(&bytes)}]});
        let reply = server.post(&body).await;
        match reply.status {
            200 => {
                scored += 1;
                let reward = reply.rewards()[0];
                assert!((-0.5..=1.2).contains(&reward), "{number}: {reward}");
            }
            422 => {
                refused += 1;
                let detail = reply.body["detail"].as_str().unwrap();
                assert!(detail.starts_with("sample 0: ") && detail.len() > 30, "{number}: {detail}");
            }
            other => panic!("{number}: {other} {}", reply.text),
        }
    }
    assert!(scored > count / 4 && refused > count / 10, "{scored} scored, {refused} refused");
    if let Some(mebibytes) = peak_memory() {
        println!("{scored} scored, {refused} refused, at most {mebibytes} MiB of memory");
    }
}

/// The most memory that this process has taken, in mebibytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}
