//! Padded rows in half precision: the graph of 32 bits with another trunk.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use half::f16;
use karat_checkpoint::{Checkpoint, Element, Form, Graph, Origin};
use karat_onnx::tensor_proto::DataType;

/// Recorded checkpoints below a folder of the tests, by name.
fn recorded(folder: &str, file: &str) -> Vec<(String, Checkpoint)> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(folder);
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join(file).is_file());
    folders.sort();
    let named = |folder: PathBuf| {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        (name, Checkpoint::read(&Origin::whole(&folder)).unwrap())
    };
    folders.into_iter().map(named).collect()
}

/// Both graphs of a checkpoint in a form.
fn graphs(checkpoint: &Checkpoint, form: Form) -> Vec<Graph> {
    let images = checkpoint.images_for(form).unwrap();
    std::iter::once(checkpoint.graph_for(form).unwrap()).chain(images).collect()
}

/// Asserts that a graph's inputs and outputs are those of 32 bits, and its trunk's numbers all of 16.
fn check(name: &str, whole: &Graph, half: &Graph) {
    let [told, other] = [whole, half].map(|graph| graph.model.graph.as_ref().unwrap());
    assert_eq!((&told.input, &told.output), (&other.input, &other.output), "{name}");
    let (heads, trunk): (Vec<_>, Vec<_>) = half.tensors.iter().partition(|tensor| tensor.element == Element::Float32);
    assert!(trunk.iter().all(|tensor| tensor.element == Element::Float16), "{name}");
    assert!(trunk.len() > heads.len(), "{name}: {} of 16 bits, {} of 32", trunk.len(), heads.len());
    // What is read has weights of its own, and distances are told by weights alone.
    let reads = [
        "pooler",
        "classifier",
        "head",
        "projection",
        "norm",
        "layers.",
        "rel_embeddings",
        "encoder.LayerNorm",
        "_proj",
    ];
    for tensor in heads {
        assert!(reads.iter().any(|part| tensor.name.contains(part)), "{name}: {} is computed in 32 bits", tensor.name);
    }
    for constant in other.initializer.iter().filter(|constant| constant.data_type() == i32::from(DataType::Float16)) {
        let Some(bytes) = &constant.raw_data else { continue };
        let numbers = bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]));
        assert!(numbers.into_iter().all(f16::is_finite), "{name}: half precision doesn't hold {}", constant.name());
    }
}

#[test]
fn encoders_and_models_that_see_have_it_and_decoders_do_not() {
    let mut seen = 0;
    for (name, checkpoint) in recorded("checkpoints", "expected.json") {
        if checkpoint.is_decoder() {
            let error = checkpoint.graph_for(Form::HalfRows).unwrap_err().to_string();
            assert!(error.contains("decoders") && error.contains("form = \"rows\""), "{name}: {error}");
            continue;
        }
        seen += 1;
        for (whole, half) in graphs(&checkpoint, Form::Rows).iter().zip(&graphs(&checkpoint, Form::HalfRows)) {
            check(&name, whole, half);
        }
    }
    for (name, checkpoint) in recorded("images/checkpoints", "scores.json") {
        seen += 1;
        let [whole, half] = [Form::Rows, Form::HalfRows].map(|form| graphs(&checkpoint, form));
        assert_eq!(whole.len(), half.len(), "{name}");
        for (whole, half) in whole.iter().zip(&half) {
            check(&name, whole, half);
        }
        assert_eq!(checkpoint.form_on_gpu(), Form::HalfRows, "{name}");
    }
    assert!(seen > 12, "{seen}");
}

#[test]
fn a_gpu_gets_packed_rows_of_what_has_them() {
    for (name, checkpoint) in recorded("checkpoints", "expected.json") {
        // The heads of recorded encoders have 4 numbers.
        let wanted = if checkpoint.is_decoder() { Form::Packed(checkpoint.half()) } else { Form::HalfRows };
        assert_eq!(checkpoint.form_on_gpu(), wanted, "{name}");
    }
}
