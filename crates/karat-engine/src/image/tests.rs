//! Pixels held to those of Transformers with Pillow.

use std::{collections::HashMap, fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{
    decode::{decode, decoded_bytes},
    preprocess::Preprocess,
    resample::Rgb,
};

/// What `tests/images/record.py` wrote with Transformers and Pillow.
#[derive(Deserialize)]
struct Recorded {
    processors: HashMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    file: String,
    processor: String,
    size: [usize; 2],
    pixels: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/images")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

#[test]
fn every_pixel_is_the_one_that_transformers_and_pillow_give() {
    let recorded: Recorded = serde_json::from_slice(&file("pixels.json")).unwrap();
    let processors = recorded.processors.iter();
    let processors: HashMap<&String, Preprocess> =
        processors.map(|(name, keys)| (name, Preprocess::parse(&keys.to_string()).unwrap())).collect();
    assert!(recorded.cases.len() > 40);
    let mut far = Vec::new();
    for Case { file: name, processor, size, pixels } in &recorded.cases {
        let processor = &processors[processor];
        assert_eq!(processor.size(), *size, "{name}");
        let found = processor.apply(&decode(&file(name)).unwrap());
        let wanted = BASE64_STANDARD.decode(pixels).unwrap();
        // Of the largest, a few rows and columns are kept.
        let step = if found.len() == wanted.len() { 1 } else { 48 };
        let kept = found.chunks(size[1] * 3).step_by(step).flat_map(|row| row.chunks(3).step_by(step).flatten());
        let differences: Vec<u8> = kept.zip(&wanted).map(|(found, wanted)| found.abs_diff(*wanted)).collect();
        assert_eq!(differences.len(), wanted.len(), "{name}");
        let worst = differences.iter().max().unwrap();
        // Photographs to the bit; libwebp rounds a colour here and there otherwise.
        let most = u8::from(name.ends_with(".webp"));
        if *worst > most {
            far.push(format!("{name}: {worst}"));
        }
    }
    assert!(far.is_empty(), "{far:?}");
}

#[test]
fn what_programs_read_in_different_ways_is_refused() {
    for (name, needle) in [("cmyk.jpg", "CMYK"), ("grey16.png", "16 bits")] {
        let error = decode(&file(name)).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn an_image_of_too_many_pixels_is_refused_by_its_header() {
    assert!(decode(&bomb()).unwrap_err().to_string().contains("32768 x 32768"));
}

/// A file whose header tells of very many pixels.
fn bomb() -> Vec<u8> {
    let mut bomb = file("dot.png");
    // Width and height stand behind the name of the header's chunk, and its checksum behind those.
    bomb[16..24].copy_from_slice(&[0, 0, 0x80, 0, 0, 0, 0x80, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    bomb
}

#[test]
fn the_memory_that_decoding_takes_is_known_by_the_header() {
    for name in ["full.jpg", "rgba16.png", "still.gif", "lossy.webp"] {
        let Rgb { height, width, .. } = decode(&file(name)).unwrap();
        assert_eq!(decoded_bytes(&file(name)), height * width * 12, "{name}");
    }
    assert_eq!(decoded_bytes(&bomb()), 12 << 25, "no more than is decoded at all");
    assert_eq!(decoded_bytes(b"BM and more"), 0);
}

#[test]
fn keys_that_could_change_a_pixel_are_refused_by_name() {
    let base = r#""size":{"height":8,"width":8},"resample":3,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]"#;
    assert!(Preprocess::parse(&format!("{{{base},\"do_thumbnail\":false,\"use_fast\":true}}")).is_ok());
    assert!(Preprocess::parse(&format!("{{\"image_processor\":{{{base}}}}}")).is_ok());
    for (keys, needle) in [
        (r#","do_thumbnail":true"#, "do_thumbnail"),
        (r#","temporal_patch_size":2,"merge_size":2"#, "vision-language"),
        (r#","do_pad":true"#, "do_pad"),
        (r#","image_std":[0,1,1]"#, "image_std"),
        (r#","resample":9"#, "resample is 9"),
        (r#","size":{"shortest_edge":8}"#, "differ in size"),
        (r#","size":{"longest_edge":8}"#, "shortest_edge"),
        (r#","size":{"height":8,"width":100000}"#, "4096"),
        (r#","do_resize":false"#, "one size"),
    ] {
        // A key that is written twice counts the second time.
        let whole: Value = serde_json::from_str(&format!("{{{base}{keys}}}")).unwrap();
        let error = Preprocess::parse(&whole.to_string()).map(|_| ()).unwrap_err();
        assert!(error.contains(needle), "{keys}: {error}");
    }
}
