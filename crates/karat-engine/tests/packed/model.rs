//! A recorded checkpoint as a session of packed rows on the processor.

use std::{num::NonZeroUsize, path::Path};

use karat_checkpoint::{Checkpoint, Element, Form, Numbers};
use karat_runtime::{
    Cancellation, Provider, ProviderKind,
    ort::{BuiltGraph, Graph, Library, Weight, WeightNumbers},
    packed::PackedExecutor,
};

use crate::texts::Layout;

const BLOCKS: NonZeroUsize = NonZeroUsize::new(48).unwrap();

/// An open checkpoint.
pub(crate) struct Model {
    pub(crate) name: String,
    session: Box<dyn PackedExecutor>,
}

impl Model {
    /// Opens a folder's checkpoint; `None` where it has no form of packed rows.
    pub(crate) fn open(name: &str, folder: &Path) -> Option<Self> {
        let checkpoint = Checkpoint::read(folder).unwrap();
        if !checkpoint.packs() {
            return None;
        }
        let graph = checkpoint.graph_for(Form::Packed(Element::Float32)).unwrap();
        let weight = |tensor: &karat_checkpoint::Tensor| {
            let Numbers::Float32(numbers) = checkpoint.numbers(tensor).unwrap() else { panic!("not in 32 bits") };
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            Weight { name, shape, numbers: WeightNumbers::Float32(numbers) }
        };
        let weights = graph.tensors.iter().map(weight).collect();
        let built = BuiltGraph { name: folder.to_owned(), model: graph.model, weights };
        let library = Library::load(None).unwrap();
        let graph: Graph = library.open_built(built, &[Provider::from(ProviderKind::Cpu)]).unwrap();
        let model = graph.packed_model().unwrap();
        let outputs = [model.outputs[0].name.clone()];
        let session = graph.packed_executor(&outputs, BLOCKS, NonZeroUsize::MIN).unwrap();
        Some(Self { name: name.to_owned(), session })
    }

    /// What is read of a layout, all in one line.
    pub(crate) fn run(&mut self, layout: &Layout) -> Vec<f32> {
        let rows = self.session.forward(&layout.pass, &Cancellation::new()).unwrap();
        rows.iter().flat_map(|row| row.values().to_vec()).collect()
    }
}
