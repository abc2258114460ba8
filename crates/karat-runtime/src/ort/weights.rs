//! The weights of a graph in a file, which all of its sessions share.
//!
//! ONNX Runtime gives every session a copy of the weights of its own, twice over where it repacks matrices for its
//! kernels. It shares both only for weights that the caller lends: the tensors through the session's options, what
//! it packs of them through a container. So the weights are read here once and lent to each session, and a session
//! more costs what it computes with, not another model. Only for the processor: a GPU holds one session.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use ::ort::value::{DynValue, PrimitiveTensorElementType, Tensor};
use bytes::Bytes;
use half::{bf16, f16};
use karat_onnx::{
    GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    tensor_proto::{DataLocation, DataType},
};

use super::{lent::LentWeights, pool::Pool};
use crate::{RuntimeError, error::Cause};

/// Below this many bytes a tensor isn't worth lending: biases, scales, shapes.
const MIN_SHARED_BYTES: usize = 4096;

/// Operators past which ONNX Runtime moves transpositions. It permutes a weight that one of them takes where it stands, and
/// only then puts the lent tensor there, which has the order of the file.
const PERMUTE: &[&str] = &[
    "Add",
    "And",
    "BitShift",
    "Concat",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "QLinearAdd",
    "QLinearConcat",
    "QLinearMul",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Takes the large weights out of the model that was read from `path`, and out of the files beside it.
pub(super) fn read(model: &ModelProto, path: &Path, pool: Arc<Pool>) -> Result<LentWeights, RuntimeError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let tensors = model.graph.as_ref().map_or(Ok(Vec::new()), |graph| tensors(graph, folder));
    let tensors = tensors.map_err(|cause| RuntimeError::Graph { path: path.to_owned(), cause })?;
    Ok(LentWeights::new(model.graph.as_ref(), tensors, pool))
}

/// The graph without the weights that are lent, lest each session reads them again; `None` where some lie in files beside
/// it, which are found from where the graph lies.
pub(super) fn without(model: &ModelProto, lent: &LentWeights) -> Option<ModelProto> {
    if !model.external_files().is_empty() {
        return None;
    }
    let mut model = model.clone();
    let lent: BTreeSet<&str> = lent.tensors().map(|(name, _)| name).collect();
    for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if lent.contains(tensor.name()) {
            tensor.raw_data = None;
            tensor.data_location = Some(DataLocation::External.into());
            tensor.external_data = vec![StringStringEntryProto::new("location", "memory")];
        }
    }
    Some(model)
}

fn tensors(graph: &GraphProto, folder: &Path) -> Result<Vec<(String, DynValue)>, Cause> {
    let mut tensors = Vec::new();
    let permuted = permuted(graph);
    for tensor in &graph.initializer {
        // What is also an input can be overridden by a caller, so its value isn't fixed.
        if graph.input.iter().any(|input| input.name() == tensor.name()) || permuted.contains(tensor.name()) {
            continue;
        }
        let bytes = match &tensor.raw_data {
            _ if !tensor.external_data.is_empty() => read_external(tensor, folder)?,
            Some(bytes) => bytes.clone(),
            None => continue,
        };
        if bytes.len() < MIN_SHARED_BYTES {
            continue;
        }
        let value = match DataType::try_from(tensor.data_type()) {
            Ok(DataType::Float) => decode(tensor, &bytes, f32::from_le_bytes)?,
            Ok(DataType::Float16) => decode(tensor, &bytes, f16::from_le_bytes)?,
            Ok(DataType::Bfloat16) => decode(tensor, &bytes, bf16::from_le_bytes)?,
            Ok(DataType::Int8) => decode(tensor, &bytes, i8::from_le_bytes)?,
            Ok(DataType::Uint8) => decode(tensor, &bytes, u8::from_le_bytes)?,
            _ => continue,
        };
        tensors.push((tensor.name().to_owned(), value));
    }
    Ok(tensors)
}

/// The values of a graph that ONNX Runtime may permute in their place.
pub(super) fn permuted(graph: &GraphProto) -> BTreeSet<&str> {
    let takes = |node: &&NodeProto| PERMUTE.contains(&node.op_type());
    let mut permuted: BTreeSet<&str> =
        graph.node.iter().filter(takes).flat_map(|node| &node.input).map(String::as_str).collect();
    // Of what is stored in few bits, the permutation is made behind the node that widens it.
    let widens = |node: &&NodeProto| node.op_type() == "DequantizeLinear";
    for node in graph.node.iter().filter(widens) {
        if node.output.iter().any(|output| permuted.contains(output.as_str())) {
            permuted.extend(node.input.iter().map(String::as_str));
        }
    }
    permuted
}

/// Copies the bytes into a tensor that is aligned as its numbers need.
fn decode<T, const N: usize>(
    tensor: &TensorProto,
    bytes: &[u8],
    number: impl Fn([u8; N]) -> T,
) -> Result<DynValue, Cause>
where
    T: PrimitiveTensorElementType + fmt::Debug + Clone + 'static,
{
    let (chunks, rest) = bytes.as_chunks::<N>();
    let expected = tensor.dims.iter().try_fold(1_i64, |count, size| count.checked_mul(*size));
    if !rest.is_empty() || i64::try_from(chunks.len()).ok() != expected {
        return Err(format!(
            "weight {:?} has {} bytes, which its shape {:?} doesn't take",
            tensor.name(),
            bytes.len(),
            tensor.dims
        )
        .into());
    }
    let numbers: Vec<T> = chunks.iter().map(|&chunk| number(chunk)).collect();
    Ok(Tensor::from_array((tensor.dims.clone(), numbers))?.into_dyn())
}

fn read_external(tensor: &TensorProto, folder: &Path) -> Result<Bytes, Cause> {
    let named = PathBuf::from(tensor.external("location").unwrap_or_default());
    // A graph must not reach files outside its folder.
    if !named.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(
            format!("weight {:?} lies outside the graph's folder, in {}", tensor.name(), named.display()).into()
        );
    }
    let path = folder.join(named);
    let unreadable =
        |error: std::io::Error| format!("weight {:?} can't be read from {}: {error}", tensor.name(), path.display());
    let mut file = File::open(&path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let offset = tensor.external("offset").map_or(Ok(0), str::parse)?;
    let count = tensor.external("length").map_or(Ok(length.saturating_sub(offset)), str::parse)?;
    if offset.saturating_add(count) > length {
        return Err(format!("weight {:?} reaches beyond the end of {}", tensor.name(), path.display()).into());
    }
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize};

    use super::{
        super::{
            GraphFile, Sessions,
            testing::{DataType, GraphWriter, ids_to_scores, library},
        },
        *,
    };
    use crate::{Cancellation, Provider, TokenBatch};
    use karat_rules::domain::{Cut, TokenizedInput};

    const SIZE: usize = 64;

    /// Row `i` of the matrix holds `i + j` in column `j`; large enough to be lent and packed.
    fn matrix() -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        (0..SIZE * SIZE).map(|at| (at / SIZE + at % SIZE) as f32).collect()
    }

    /// Counts the tokens of a sample and multiplies a vector of that count with the matrix.
    fn graph() -> GraphWriter {
        GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .integers("axis", &[1])
            .floats("ones", &[1, 64], &[1.0; SIZE])
            .cast("input_ids", "ids", DataType::Float)
            .node("ReduceSum", &["ids", "axis"], "sum", &[("keepdims", 1)])
            .node("MatMul", &["sum", "ones"], "vector", &[])
            .node("MatMul", &["vector", "matrix"], "scores", &[])
            .output("scores", DataType::Float, &["batch", "64"])
    }

    /// What several sessions give, before and after weights are given back, where some of them are packed.
    fn scores(path: &Path, packs: bool) -> Vec<Vec<f32>> {
        let graph = library().open(&GraphFile { path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap();
        let binding = ids_to_scores();
        let input = TokenizedInput::new(vec![1, 2], vec![0, 0], 0..2, Cut::default()).unwrap();
        let batch = TokenBatch::single(Arc::new(input));
        // Sessions come and go while the weights stay.
        let mut run = |threads| {
            let mut executor = graph.executor(&binding, NonZeroUsize::new(threads).unwrap()).unwrap();
            executor.run(&batch, &Cancellation::new()).unwrap()[0][0].values().to_vec()
        };
        let mut scores: Vec<Vec<f32>> = (1..=3).map(&mut run).collect();
        let mut last = graph.executor(&binding, NonZeroUsize::new(2).unwrap()).unwrap();
        let mut again = || last.run(&batch, &Cancellation::new()).unwrap()[0][0].values().to_vec();
        // What a session reads, so that it changes, is still there, and what was packed isn't needed any more.
        let mut number = 0;
        let mut changing = || {
            number += 1;
            again().first().map(|_| vec![number])
        };
        graph.give_back_weights(&mut [Box::new(&mut changing)], None);
        scores.push(again());
        let trial = || {
            scores.push(again());
            Some(Vec::new())
        };
        graph.give_back_weights(&mut [Box::new(trial)], None);
        scores.push(again());
        let another = graph.executor(&binding, NonZeroUsize::MIN);
        assert_eq!(another.err().is_some_and(|error| error.to_string().contains("given back")), packs);
        scores
    }

    /// `x + table`, written as the transpose of `xᵀ + tableᵀ`: the two are taken for none, and the table is permuted.
    #[test]
    fn weights_that_are_permuted_in_their_place_are_not_lent() {
        const SIDE: usize = 32;
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        let table: Vec<f32> = (0..SIDE * SIDE).map(|at| at as f32).collect();
        let bytes: Vec<u8> = table.iter().flat_map(|number| number.to_le_bytes()).collect();
        let (_folder, path) = GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .integers("axis", &[1])
            .integers("square", &[SIDE as i64, SIDE as i64])
            .integers("row", &[1, (SIDE * SIDE) as i64])
            .floats("ones", &[1, (SIDE * SIDE) as i64], &[1.0; SIDE * SIDE])
            .cast("input_ids", "ids", DataType::Float)
            .node("ReduceSum", &["ids", "axis"], "sum", &[("keepdims", 1)])
            .node("MatMul", &["sum", "ones"], "vector", &[])
            .node("Reshape", &["vector", "square"], "matrix", &[])
            .node("Transpose", &["matrix"], "turned", &[])
            .node("Add", &["turned", "table"], "added", &[])
            .node("Transpose", &["added"], "back", &[])
            .node("Reshape", &["back", "row"], "scores", &[])
            .output("scores", DataType::Float, &["batch", "1024"])
            .raw("table", &[SIDE as i64, SIDE as i64], &bytes)
            .write();
        let expected: Vec<f32> = (0..SIDE * SIDE).map(|at| 3.0 + table[at % SIDE * SIDE + at / SIDE]).collect();
        assert_eq!(scores(&path, false), vec![expected; 5]);
    }

    #[test]
    fn every_session_computes_with_the_lent_weights() {
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        let expected: Vec<f32> = (0..SIZE).map(|column| 3.0 * (SIZE * (SIZE - 1) / 2 + SIZE * column) as f32).collect();
        let bytes: Vec<u8> = matrix().into_iter().flat_map(f32::to_le_bytes).collect();

        let (_folder, path) = graph().raw("matrix", &[64, 64], &bytes).write();
        assert_eq!(scores(&path, true), vec![expected.clone(); 7]);

        let (folder, path) = graph().external("matrix", &[64, 64], "weights.bin", 8).write();
        fs::write(folder.path().join("weights.bin"), [&[0; 8], bytes.as_slice()].concat()).unwrap();
        assert_eq!(scores(&path, true), vec![expected; 7]);
    }

    #[test]
    fn a_damaged_or_foreign_weight_is_an_error() {
        for (graph, part) in [
            (graph().raw("matrix", &[64, 65], &[0; MIN_SHARED_BYTES]), "shape"),
            (graph().external("matrix", &[64, 64], "../weights.bin", 0), "outside"),
            (graph().external("matrix", &[64, 64], "/etc/hostname", 0), "outside"),
            (graph().external("matrix", &[64, 64], "missing.bin", 0), "missing.bin"),
        ] {
            let (_folder, path) = graph.write();
            let error = library()
                .open(&GraphFile { path: &path, providers: &[Provider::Cpu] }, Sessions::SEVERAL)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
