//! Compiles the protocol files. In Rust alone: a machine without `protoc` builds karat too.

use std::error::Error;

/// Where the messages are made modules of.
const GRPC: &str = "crate::api::dialects::kserve::grpc";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/inference.proto"], ["proto"])?;
    let messages = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("messages");
    std::fs::create_dir_all(&messages)?;
    let builder = || tonic_prost_build::configure().build_client(false);
    builder().build_server(false).out_dir(messages).compile_fds(files.clone())?;
    // The service takes the one message that may be large as the bytes that arrive.
    builder()
        .extern_path(".inference", format!("{GRPC}::protocol"))
        .extern_path(".inference.ModelInferRequest", format!("{GRPC}::codec::UnreadInferRequest"))
        .codec_path(format!("{GRPC}::codec::ArrivingCodec"))
        .compile_fds(files)?;
    Ok(())
}
