//! What is read of a graph when it is opened, and which provider it comes to.

use super::{
    super::testing::{DataType, GraphWriter, library},
    *,
};
use crate::CudaOptions;

fn graph() -> GraphWriter {
    GraphWriter::default()
        .input("input_ids", DataType::Int64, &["batch", "tokens"])
        .cast("input_ids", "scores", DataType::Float)
        .output("scores", DataType::Float, &["batch", "tokens"])
}

fn open(providers: &[Provider]) -> Result<Graph, RuntimeError> {
    let (_folder, path) = graph().write();
    library().open(&GraphFile { path: &path, providers }, Sessions::SEVERAL)
}

#[test]
fn the_signature_is_read_from_the_file() {
    let graph = open(&[Provider::Cpu]).unwrap();
    assert_eq!(graph.signature().inputs[0].to_string(), "input_ids int64[batch, tokens]");
    assert_eq!(graph.signature().outputs[0].to_string(), "scores float32[batch, tokens]");
    assert_eq!(graph.provider(), ProviderKind::Cpu);
    assert!(graph.skipped().is_empty() && graph.is_batch_invariant());
}

#[test]
fn an_ordinary_graph_takes_no_packed_rows() {
    let graph = open(&[Provider::Cpu]).unwrap();
    assert!(graph.packed_model().is_none());
    let one = NonZeroUsize::MIN;
    let error = graph.packed_executor(&["scores".to_owned()], one, one).err().unwrap().to_string();
    assert!(error.contains("rm-packed/1") && error.contains("form = \"packed\""), "{error}");
}

#[test]
fn a_provider_that_can_not_start_is_an_error_unless_another_follows() {
    // The library of `make setup` is the processor's, so CUDA can't start from it on any machine.
    let cuda = || Provider::Cuda(CudaOptions::default());
    let error = open(&[cuda()]).unwrap_err().to_string();
    assert!(error.contains("\"cuda\"") && error.contains(".so"), "names the library: {error}");
    let graph = open(&[Provider::Cpu, cuda()]).unwrap();
    assert_eq!(graph.provider(), ProviderKind::Cpu);

    let graph = open(&[cuda(), ProviderKind::Tensorrt.into(), Provider::Cpu]).unwrap();
    assert_eq!(graph.provider(), ProviderKind::Cpu);
    let skipped: Vec<_> = graph.skipped().iter().map(|skipped| skipped.provider).collect();
    assert_eq!(skipped, [ProviderKind::Cuda, ProviderKind::Tensorrt]);
    assert!(graph.skipped().iter().all(|skipped| skipped.reason.contains(".so")), "{:?}", graph.skipped());
    assert!(matches!(open(&[]), Err(RuntimeError::NoProvider)));
}

#[test]
fn a_file_that_is_no_graph_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), Path::new("/nowhere/model.onnx")] {
        let result = library().open(&GraphFile { path, providers: &[Provider::Cpu] }, Sessions::SEVERAL);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
