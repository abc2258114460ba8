//! Compiles ONNX's schema. In Rust alone: a machine without `protoc` builds karat too.

use std::error::Error;

/// Fields that few attributes have, and that would make every attribute of a graph several times as large.
const RARE_FIELDS: [&str; 4] = ["t", "g", "sparse_tensor", "tp"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/onnx.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    // Weights stay where the file was read to.
    config.bytes(["."]);
    for field in RARE_FIELDS {
        config.boxed(format!(".onnx.AttributeProto.{field}"));
    }
    config.compile_fds(files)?;
    Ok(())
}
