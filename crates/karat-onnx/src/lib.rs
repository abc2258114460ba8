//! ONNX files as Rust types, for those who read graphs and those who write them.
//!
//! The types are generated from [onnx.proto](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), which stands in
//! `proto/` as ONNX publishes it; the build script leaves out what nobody here reads. A file is one [`ModelProto`]: [`prost::Message`] reads and writes it. Decoded from
//! [`bytes::Bytes`], weights aren't copied: they are slices of the file, and keep all of it in memory while they live.
//!
//! Names are ONNX's own. A field that a file leaves out is `None`; its getter, a method of the same name, then gives
//! the default.

mod compose;
mod external;

/// What the schema says.
#[allow(warnings, reason = "generated from proto/onnx.proto")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use generated::*;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    fn model(tensors: Vec<TensorProto>) -> ModelProto {
        ModelProto::of(GraphProto { initializer: tensors, ..GraphProto::default() })
    }

    #[test]
    fn weights_are_slices_of_the_file() {
        let weight = TensorProto { raw_data: Some(Bytes::from_static(&[7; 64])), ..TensorProto::default() };
        let file = Bytes::from(model(vec![weight]).encode_to_vec());
        let read = ModelProto::decode(file.clone()).unwrap();
        let weight = read.graph.unwrap().initializer.remove(0).raw_data.unwrap();
        assert_eq!(weight, [7; 64].as_slice());
        assert!(file.as_ptr_range().contains(&weight.as_ptr()));
    }

    #[test]
    fn what_nobody_reads_keeps_no_graph_from_being_read() {
        // Field 6, `doc_string`, in bytes that are no UTF-8.
        let file = [model(Vec::new()).encode_to_vec(), vec![0x32, 2, 0xff, 0xfe]].concat();
        assert!(ModelProto::decode(Bytes::from(file)).unwrap().graph.is_some());
    }

    #[test]
    fn each_file_of_weights_is_named_once() {
        let weight = |location: &str| TensorProto {
            external_data: vec![
                StringStringEntryProto::new("offset", "8"),
                StringStringEntryProto::new("location", location),
            ],
            ..TensorProto::default()
        };
        let model = model(vec![weight("b"), TensorProto::default(), weight("a"), weight("b")]);
        assert!(model.external_files().into_iter().eq(["a", "b"]));
        assert_eq!(model.graph.unwrap().initializer[0].external("offset"), Some("8"));
    }
}
