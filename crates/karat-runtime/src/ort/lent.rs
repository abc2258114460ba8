//! Weights that are lent to sessions, and given back once all have packed what they need of them.
//!
//! ONNX Runtime packs copies of matrices for its kernels and reads the originals no more. Those that it owns it frees; of
//! those that are lent it needs a whole set to start a session, and none of them afterwards. So when all sessions of a
//! graph run, the pages of what was packed go back to the system. Which weights those are is told by what reads them, and
//! tried out before anything is given back: it is overwritten, and no score may change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::ort::{
    session::builder::SessionBuilder,
    value::{DynValue, TensorElementType},
};
use karat_onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::{pages::Pages, pool::Pool, weights::permuted};
use crate::free_memory;

/// Overwrites what nobody should read: numbers of all formats become ones that spoil any score, those of floating point none
/// at all.
const SPOILT: u8 = 0xff;

/// The weights that the sessions of one graph share.
pub(super) struct LentWeights {
    tensors: Vec<LentTensor>,
    pool: Arc<Pool>,
    /// What is gone.
    given_back: Mutex<BTreeSet<Packing>>,
}

struct LentTensor {
    name: String,
    value: Arc<DynValue>,
    /// What packs it, where all that reads it does.
    packed: Option<Packing>,
    /// Whether sessions may share what they pack of it. They may not of what ONNX Runtime permutes in its place, of which
    /// each makes a copy, nor of 16 bits, which kernels of norms pack and can't share.
    is_shared: bool,
}

/// What packs a weight. Each kind is tried by itself before it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Packing {
    /// Products in floating point.
    Product,
    /// Products of integers, where ONNX Runtime makes one of a product between its factors' and its own scales.
    QuantisedProduct,
}

impl LentWeights {
    /// Weights of a graph by name; those that sessions read as they are may be in the pool already.
    pub(super) fn new(graph: Option<&GraphProto>, tensors: Vec<(String, DynValue)>, pool: Arc<Pool>) -> Self {
        let packed = graph.map(packed).unwrap_or_default();
        let permuted = graph.map(permuted).unwrap_or_default();
        let lent = tensors.into_iter().map(|(name, value)| {
            let packed = packed.get(name.as_str()).copied();
            let is_shared = !permuted.contains(name.as_str()) && !is_half(&value);
            let value = if packed.is_some() { Arc::new(value) } else { pool.keep(value) };
            LentTensor { name, value, packed, is_shared }
        });
        Self { tensors: lent.collect(), pool, given_back: Mutex::default() }
    }

    /// What they are shared in.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whether there are some that sessions pack.
    pub(super) fn packs(&self) -> bool {
        self.tensors.iter().any(|lent| lent.packed.is_some())
    }

    /// Each by its name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &Arc<DynValue>)> {
        self.tensors.iter().map(|lent| (lent.name.as_str(), &lent.value))
    }

    /// Lends them to a session in the making.
    pub(super) fn lend(&self, builder: SessionBuilder) -> Result<SessionBuilder, ::ort::Error> {
        if !self.given_back().is_empty() {
            return Err(::ort::Error::new("its weights were given back to the system"));
        }
        let mut builder = builder.with_prepacked_weights(self.pool.packed())?;
        for LentTensor { name, value, .. } in self.tensors.iter().filter(|lent| lent.is_shared) {
            builder = builder.with_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }

    /// Gives back what sessions don't read any more, unless `is_unchanged` says that something has changed without it. No
    /// session may be running or starting meanwhile, but for those that `is_unchanged` has for itself and runs; none can
    /// start afterwards. Tells whether all is gone that sessions pack.
    pub(super) fn give_back(&self, mut is_unchanged: impl FnMut() -> bool) -> bool {
        let mut all = true;
        for packing in [Packing::Product, Packing::QuantisedProduct] {
            all &= self.give_back_packed(packing, &mut is_unchanged);
        }
        all
    }

    fn give_back_packed(&self, packing: Packing, is_unchanged: impl FnOnce() -> bool) -> bool {
        if self.given_back().contains(&packing) {
            return true;
        }
        let packed = self.tensors.iter().filter(|lent| lent.packed == Some(packing));
        let mut pages: Vec<Pages> = packed.filter_map(|lent| Pages::of(&lent.value)).collect();
        if pages.is_empty() {
            return true;
        }
        let bytes: u64 = pages.iter().map(Pages::bytes).sum();
        // What is overwritten is kept aside meanwhile.
        if free_memory().is_some_and(|free| free < bytes.saturating_mul(2)) {
            return false;
        }
        let kept: Vec<Vec<u8>> = pages.iter_mut().map(|pages| pages.overwrite(SPOILT)).collect();
        let unchanged = is_unchanged();
        if unchanged {
            self.given_back().insert(packing);
            drop(kept);
            pages.into_iter().for_each(Pages::give_back);
        } else {
            pages.iter_mut().zip(&kept).for_each(|(pages, kept)| pages.restore(kept));
            tracing::debug!("sessions may read weights that they were thought to have packed: nothing is given back");
        }
        unchanged
    }

    fn given_back(&self) -> MutexGuard<'_, BTreeSet<Packing>> {
        // It changes by whole entries.
        self.given_back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LentWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentWeights").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

/// Whether a weight has numbers of 16 bits.
fn is_half(value: &DynValue) -> bool {
    let element = value.dtype().tensor_type();
    matches!(element, Some(TensorElementType::Float16 | TensorElementType::Bfloat16))
}

/// The weights that kernels pack, and nothing else reads: right factors of products.
fn packed(graph: &GraphProto) -> BTreeMap<&str, Packing> {
    let nodes = Nodes::of(graph);
    let given: BTreeSet<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    let inner: BTreeSet<&str> = graph.node.iter().flat_map(inner_names).collect();
    graph
        .initializer
        .iter()
        .filter(|tensor| tensor.dims.len() == 2)
        .map(TensorProto::name)
        .filter(|name| !given.contains(name) && !inner.contains(name))
        .filter_map(|name| Some((name, nodes.packing(name)?)))
        .collect()
}

/// Which nodes of a graph read and write a value.
struct Nodes<'a> {
    readers: BTreeMap<&'a str, Vec<(&'a NodeProto, usize)>>,
    writers: BTreeMap<&'a str, &'a NodeProto>,
}

impl<'a> Nodes<'a> {
    fn of(graph: &'a GraphProto) -> Self {
        let (mut readers, mut writers) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for node in &graph.node {
            for (place, input) in node.input.iter().enumerate() {
                readers.entry(input.as_str()).or_default().push((node, place));
            }
            writers.extend(node.output.iter().map(|output| (output.as_str(), node)));
        }
        Self { readers, writers }
    }

    /// What packs a weight, where nothing else reads it.
    fn packing(&self, weight: &str) -> Option<Packing> {
        let readers = self.readers.get(weight)?;
        let all = |is: &dyn Fn(&NodeProto, usize) -> bool| readers.iter().all(|&(node, place)| is(node, place));
        if all(&|node, place| place == 1 && matches!(node.op_type(), "MatMul" | "Gemm")) {
            return Some(Packing::Product);
        }
        all(&|node, place| place == 0 && self.widens_for_integers(node)).then_some(Packing::QuantisedProduct)
    }

    /// Whether what a node widens is the right factor of a product that is computed in integers: its left factor is widened
    /// for it alone, and its result is quantised again.
    fn widens_for_integers(&self, widening: &NodeProto) -> bool {
        let Some((product, 1)) = self.only_reader(widening) else { return false };
        let Some(left) = product.input.first().and_then(|left| self.writers.get(left.as_str())) else { return false };
        widening.op_type() == "DequantizeLinear"
            && product.op_type() == "MatMul"
            && left.op_type() == "DequantizeLinear"
            && self.only_reader(left).is_some()
            && self.only_reader(product).is_some_and(|(reader, _)| reader.op_type() == "QuantizeLinear")
    }

    /// The one node that reads what a node writes, and at which place.
    fn only_reader(&self, node: &NodeProto) -> Option<(&'a NodeProto, usize)> {
        match self.readers.get(node.output.first()?.as_str())?.as_slice() {
            [reader] => Some(*reader),
            _ => None,
        }
    }
}

/// What the graphs within a node read, such as those of loops and branches.
fn inner_names(node: &NodeProto) -> Vec<&str> {
    let graphs =
        node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
    let mut names = Vec::new();
    for inner in graphs.flat_map(|graph| &graph.node) {
        names.extend(inner.input.iter().map(String::as_str));
        names.extend(inner_names(inner));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{DataType, GraphWriter},
        *,
    };

    #[test]
    fn only_what_is_a_right_factor_and_nothing_else_is_packed() {
        let matrix = [0_u8; 16];
        let names = ["right", "left", "looked_up", "quantised", "vector", "integers"];
        let shape = |name: &str| if name == "vector" { vec![4] } else { vec![2, 2] };
        let model = names
            .iter()
            .fold(GraphWriter::default(), |graph, name| graph.raw(name, &shape(name), &matrix))
            .input("ids", DataType::Int64, &["tokens"])
            .node("Gather", &["looked_up", "ids"], "rows", &[])
            .node("MatMul", &["rows", "looked_up"], "a", &[])
            .node("MatMul", &["a", "right"], "b", &[])
            .node("Gemm", &["b", "right"], "c", &[("transB", 1)])
            .node("MatMul", &["left", "c"], "d", &[])
            .node("DequantizeLinear", &["quantised", "scale"], "e", &[])
            .node("MatMul", &["d", "e"], "f", &[])
            .node("DequantizeLinear", &["f", "scale"], "g", &[])
            .node("DequantizeLinear", &["integers", "scale"], "h", &[])
            .node("MatMul", &["g", "h"], "j", &[])
            .node("QuantizeLinear", &["j", "scale"], "k", &[])
            .node("MatMul", &["k", "vector"], "i", &[])
            .output("i", DataType::Float, &["tokens"])
            .model();
        let found = packed(model.graph.as_ref().unwrap());
        let expected = [("integers", Packing::QuantisedProduct), ("right", Packing::Product)];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}
