//! Compiles ONNX's schema. In Rust alone: a machine without `protoc` builds karat too.

use std::error::Error;

/// Fields that few attributes have, and that would make every attribute of a graph several times as large.
const RARE_FIELDS: [&str; 2] = ["t", "g"];

/// Fields that karat neither reads nor writes, by message; `doc_string` of every message beside them. What isn't known is
/// passed over: whatever stands there, even text that is no UTF-8, keeps no graph from being read, as with ONNX Runtime.
const UNREAD_FIELDS: [(&str, &[&str]); 7] = [
    ("ModelProto", &["producer_name", "producer_version", "domain", "training_info", "configuration"]),
    ("GraphProto", &["sparse_initializer", "quantization_annotation", "value_info", "metadata_props"]),
    ("NodeProto", &["name", "overload", "metadata_props", "device_configurations"]),
    ("TensorProto", &["segment", "metadata_props"]),
    ("ValueInfoProto", &["metadata_props"]),
    ("FunctionProto", &["name", "attribute_proto", "overload", "value_info", "metadata_props"]),
    ("AttributeProto", &["ref_attr_name", "sparse_tensor", "sparse_tensors", "tp", "type_protos"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files = protox::compile(["proto/onnx.proto"], ["proto"])?;
    for message in files.file.iter_mut().flat_map(|file| &mut file.message_type) {
        let name = message.name().to_owned();
        let unread = UNREAD_FIELDS.iter().find(|(message, _)| *message == name).map_or(&[][..], |(_, fields)| fields);
        message.field.retain(|field| field.name() != "doc_string" && !unread.contains(&field.name()));
    }
    let mut config = prost_build::Config::new();
    // Weights stay where the file was read to.
    config.bytes(["."]);
    for field in RARE_FIELDS {
        config.boxed(format!(".onnx.AttributeProto.{field}"));
    }
    config.compile_fds(files)?;
    Ok(())
}
