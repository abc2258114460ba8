//! What the graph's file says that ONNX Runtime doesn't tell: its operators, and its inputs before it is loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use karat_onnx::{GraphProto, ModelProto, NodeProto, tensor_proto::DataType};
use karat_rules::domain::ElementType;
use prost::Message;

use crate::RuntimeError;

/// What was read.
#[derive(Debug)]
pub(super) struct Inspection {
    /// The inputs that a caller feeds, weights left out.
    pub(super) inputs: Vec<String>,
    /// The operators that quantise activations over the whole batch, sorted, each once.
    pub(super) dynamic_quantisation: Vec<String>,
    /// What the exporter says of the graph, as keys and values.
    pub(super) metadata: BTreeMap<String, String>,
    /// How many rows the table has that an input's numbers are looked up in, by the input's name.
    pub(super) tables: BTreeMap<String, usize>,
    /// The coarsest number format of its weights, of those that are computed with.
    pub(super) rounds_to: ElementType,
    /// Whether attention is one operator, which a GPU may plan anew for each shape.
    pub(super) fused_attention: bool,
}

/// A graph's file as it was read: once, so that a digest of its bytes tells of what is opened.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
    model: ModelProto,
}

impl ModelFile {
    /// Reads the file, without the weights that it keeps in other files.
    ///
    /// # Errors
    /// When it can't be read as a graph.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let unreadable = |cause| RuntimeError::Graph { path: path.to_owned(), cause };
        let bytes = Bytes::from(fs::read(path).map_err(|error| unreadable(error.into()))?);
        let model = ModelProto::decode(bytes.clone())
            .map_err(|error| unreadable(format!("it is no ONNX file: {error}").into()))?;
        if model.graph.is_none() {
            return Err(unreadable("it is no ONNX file: it holds no graph".into()));
        }
        Ok(Self { path: path.to_owned(), bytes, model })
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The files beside it that hold weights of the graph, as paths relative to its folder, each once.
    #[must_use]
    pub fn external_files(&self) -> BTreeSet<PathBuf> {
        self.model.external_files().into_iter().map(PathBuf::from).collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn model(&self) -> &ModelProto {
        &self.model
    }
}

/// The files beside the graph at `path` that hold weights of it, as paths relative to its folder, each once.
///
/// # Errors
/// When the file can't be read as a graph.
pub fn external_files(path: &Path) -> Result<BTreeSet<PathBuf>, RuntimeError> {
    Ok(ModelFile::read(path)?.external_files())
}

/// Looks the model over.
pub(super) fn inspect(model: &ModelProto) -> Inspection {
    let nodes =
        model.graph.iter().map(|graph| &graph.node).chain(model.functions.iter().map(|function| &function.node));
    let mut dynamic_quantisation = Vec::new();
    let mut fused_attention = false;
    for nodes in nodes {
        collect(nodes, &mut dynamic_quantisation);
        fused_attention |= nodes.iter().any(|node| matches!(node.op_type(), "Attention" | "MultiHeadAttention"));
    }
    dynamic_quantisation.sort();
    dynamic_quantisation.dedup();

    let mut inputs = Vec::new();
    if let Some(graph) = &model.graph {
        // Old files list their weights among the inputs, as defaults that a caller could override.
        let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name() == name);
        inputs.extend(graph.input.iter().map(|input| input.name().to_owned()).filter(|name| !is_weight(name)));
    }
    let metadata =
        model.metadata_props.iter().map(|entry| (entry.key().to_owned(), entry.value().to_owned())).collect();
    let tables = model.graph.as_ref().map(|graph| tables(graph, &inputs)).unwrap_or_default();
    let rounds_to = model.graph.as_ref().map_or(ElementType::Float32, rounds_to);
    Inspection { inputs, dynamic_quantisation, metadata, tables, rounds_to, fused_attention }
}

/// The tables in which inputs are looked up, cast or not; of several for one input the smallest.
fn tables(graph: &GraphProto, inputs: &[String]) -> BTreeMap<String, usize> {
    let cast = graph.node.iter().filter(|node| matches!(node.op_type(), "Cast" | "Identity"));
    let cast: BTreeMap<&str, &str> = cast
        .filter_map(|node| Some((node.output.first()?.as_str(), node.input.first()?.as_str())))
        .filter(|(_, input)| inputs.iter().any(|known| known == input))
        .collect();
    let mut tables = BTreeMap::new();
    for node in graph.node.iter().filter(|node| matches!(node.op_type(), "Gather" | "GatherBlockQuantized")) {
        let [table, ids, ..] = node.input.as_slice() else { continue };
        let input = cast.get(ids.as_str()).copied().unwrap_or(ids);
        let on_first_axis =
            !node.attribute.iter().any(|given| matches!(given.name(), "axis" | "gather_axis") && given.i() != 0);
        let weight = graph.initializer.iter().find(|tensor| tensor.name() == table.as_str());
        let rows = weight.and_then(|tensor| usize::try_from(*tensor.dims.first()?).ok());
        if let (true, true, Some(rows)) = (on_first_axis, inputs.iter().any(|known| known == input), rows) {
            tables.entry(input.to_owned()).and_modify(|least: &mut usize| *least = rows.min(*least)).or_insert(rows);
        }
    }
    tables
}

/// The coarsest format among the weights that are matrices: constants that are single numbers round nothing.
fn rounds_to(graph: &GraphProto) -> ElementType {
    let matrices = graph.initializer.iter().filter(|tensor| tensor.dims.len() > 1);
    let formats = matrices.filter_map(|tensor| match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float16) => Some(ElementType::Float16),
        Ok(DataType::Bfloat16) => Some(ElementType::Bfloat16),
        _ => None,
    });
    formats.fold(ElementType::Float32, coarser)
}

/// The one of two formats that keeps fewer digits.
pub(super) fn coarser(one: ElementType, other: ElementType) -> ElementType {
    match (one, other) {
        (ElementType::Bfloat16, _) | (_, ElementType::Bfloat16) => ElementType::Bfloat16,
        (ElementType::Float16, _) | (_, ElementType::Float16) => ElementType::Float16,
        _ => ElementType::Float32,
    }
}

fn collect(nodes: &[NodeProto], found: &mut Vec<String>) {
    // Where the graph itself says a scale, as one for each row, what a product reads was quantised before it.
    let scaled = nodes.iter().filter(|node| node.op_type() == "QuantizeLinear").flat_map(|node| &node.output);
    let scaled: BTreeSet<&str> = scaled.map(String::as_str).collect();
    let reads_scaled = |node: &NodeProto| node.input.first().is_some_and(|input| scaled.contains(input.as_str()));
    for node in nodes {
        if quantises_activations(node) && !(is_integer_product(node) && reads_scaled(node)) {
            found.push(node.op_type().to_owned());
        }
        for attribute in &node.attribute {
            for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
                collect(&graph.node, found);
            }
        }
    }
}

/// Whether the operator picks the scale of its activations from the values of the whole batch, so that a sample's
/// score depends on its neighbours and its padding.
fn quantises_activations(node: &NodeProto) -> bool {
    match node.op_type() {
        "DynamicQuantizeLinear"
        | "DynamicQuantizeMatMul"
        | "DynamicQuantizeLSTM"
        | "MatMulInteger"
        | "MatMulIntegerToFloat"
        | "ConvInteger" => true,
        // Accuracy level 4 computes in 8-bit integers, whose scale again comes from the activations.
        "MatMulNBits" => {
            node.attribute.iter().any(|attribute| attribute.name() == "accuracy_level" && attribute.i() == 4)
        }
        _ => false,
    }
}

/// Whether the operator multiplies integers that another has made of activations.
fn is_integer_product(node: &NodeProto) -> bool {
    matches!(node.op_type(), "MatMulInteger" | "MatMulIntegerToFloat" | "ConvInteger")
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{DataType, GraphWriter},
        *,
    };

    fn found(writer: GraphWriter) -> Vec<String> {
        let (_folder, path) = writer.write();
        inspect(ModelFile::read(&path).unwrap().model()).dynamic_quantisation
    }

    #[test]
    fn dynamic_quantisation_is_found_wherever_it_stands() {
        let plain = || GraphWriter::default().node("MatMul", &["a", "b"], "c", &[]);
        assert!(found(plain()).is_empty());
        assert_eq!(found(plain().node("MatMulInteger", &["a", "b"], "d", &[])), ["MatMulInteger"]);
        let inner = GraphWriter::default().node("DynamicQuantizeLinear", &["a"], "q", &[]);
        assert_eq!(
            found(plain().control("If", &["condition"], "q", &[("then_branch", &inner), ("else_branch", &plain())])),
            ["DynamicQuantizeLinear"]
        );
    }

    #[test]
    fn integers_whose_scale_the_graph_says_are_no_dynamic_quantisation() {
        let product = |quantises: &str| {
            GraphWriter::default().node(quantises, &["x", "scale", "zero"], "rows", &[]).node(
                "MatMulIntegerToFloat",
                &["rows", "weight", "one", "scales", "zero"],
                "y",
                &[],
            )
        };
        assert!(found(product("QuantizeLinear")).is_empty());
        assert_eq!(found(product("DynamicQuantizeLinear")), ["DynamicQuantizeLinear", "MatMulIntegerToFloat"]);
        let beside = product("QuantizeLinear").node("MatMulInteger", &["other", "weight"], "z", &[]);
        assert_eq!(found(beside), ["MatMulInteger"]);
    }

    #[test]
    fn four_bit_weights_are_batch_dependent_only_at_accuracy_level_4() {
        let graph =
            |level| GraphWriter::default().node("MatMulNBits", &["a"], "b", &[("bits", 4), ("accuracy_level", level)]);
        assert!(found(graph(0)).is_empty());
        assert_eq!(found(graph(4)), ["MatMulNBits"]);
    }

    #[test]
    fn the_table_that_an_input_is_looked_up_in_is_known_by_its_rows() {
        let graph = GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .input("token_type_ids", DataType::Int64, &["batch", "tokens"])
            .floats("words", &[7, 2], &[0.0; 14])
            .floats("kinds", &[2, 2], &[0.0; 4])
            .cast("input_ids", "narrow", DataType::Int32)
            .node("Gather", &["words", "narrow"], "embedded", &[])
            .node("Gather", &["kinds", "token_type_ids"], "kind", &[("axis", 0)])
            .node("Gather", &["words", "elsewhere"], "other", &[]);
        let (_folder, path) = graph.write();
        let tables = inspect(ModelFile::read(&path).unwrap().model()).tables;
        assert_eq!(tables, [("input_ids".to_owned(), 7), ("token_type_ids".to_owned(), 2)].into());
    }

    #[test]
    fn attention_is_fused_where_it_is_one_operator() {
        let fused = |operator: &str| {
            let (_folder, path) = GraphWriter::default().node(operator, &["a", "b"], "c", &[]).write();
            inspect(ModelFile::read(&path).unwrap().model()).fused_attention
        };
        assert_eq!(["Attention", "MultiHeadAttention", "MatMul"].map(fused), [true, true, false]);
    }

    #[test]
    fn weights_are_no_inputs() {
        let (_folder, path) = GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .input("weight", DataType::Float, &["1"])
            .floats("weight", &[1], &[2.0])
            .write();
        assert_eq!(inspect(ModelFile::read(&path).unwrap().model()).inputs, ["input_ids"]);
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [b"".as_slice(), b"<html>not found</html>"] {
            fs::write(file.path(), bytes).unwrap();
            let error = ModelFile::read(file.path()).unwrap_err().to_string();
            assert!(error.contains("no ONNX file"), "{error}");
        }
    }
}
