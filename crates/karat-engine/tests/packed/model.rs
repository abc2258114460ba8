//! A recorded checkpoint as a session of packed rows on the processor.

use std::{num::NonZeroUsize, path::Path};

use karat_checkpoint::{Checkpoint, Element, Form, NumbersMut, Origin, Tensor};
use karat_rules::domain::ElementType;
use karat_runtime::{
    Cancellation, Padding, Provider, ProviderKind, RuntimeError,
    ort::{BuiltGraph, Graph, Library, Sessions, Weight, WeightNumbersMut},
    packed::{PackedExecutor, PackedPass},
};

use crate::texts::{Layout, Text};

const BLOCKS: NonZeroUsize = NonZeroUsize::new(48).unwrap();

/// An open checkpoint.
pub(crate) struct Model {
    pub(crate) name: String,
    session: Box<dyn PackedExecutor>,
    padding: Option<Padding>,
}

impl Model {
    /// Opens a folder's checkpoint; `None` where it has no form of packed rows.
    pub(crate) fn open(name: &str, folder: &Path) -> Option<Self> {
        let graph = open(folder, Form::Packed(Element::Float32))?.unwrap();
        let known = graph.packed_model().unwrap();
        let (outputs, padding) = ([known.outputs[0].name.clone()], known.padding);
        let session = graph.packed_executor(&outputs, BLOCKS, NonZeroUsize::MIN).unwrap();
        Some(Self { name: name.to_owned(), session, padding })
    }

    /// A text with its score where the model reads it.
    pub(crate) fn placed(&self, mut text: Text) -> Text {
        if let (Some(padding), false) = (self.padding, text.by_steps) {
            text.reads = vec![padding.score_position(&text.tokens)];
        }
        text
    }

    /// What is read of a layout, all in one line.
    pub(crate) fn run(&mut self, layout: &Layout) -> Vec<f32> {
        self.try_run(&layout.pass, &Cancellation::new()).unwrap()
    }

    pub(crate) fn try_run(&mut self, pass: &PackedPass, cancel: &Cancellation) -> Result<Vec<f32>, RuntimeError> {
        let rows = self.session.forward(pass, cancel)?;
        Ok(rows.iter().flat_map(|row| row.values().to_vec()).collect())
    }
}

/// Opens the graph in that form on the processor; `None` where there is none.
pub(crate) fn open(folder: &Path, form: Form) -> Option<Result<Graph, RuntimeError>> {
    let checkpoint = Checkpoint::read(&Origin::whole(folder)).unwrap();
    if !checkpoint.has(form) {
        return None;
    }
    let graph = checkpoint.graph_for(form).unwrap();
    let library = Library::load(None).unwrap();
    let new = |tensor: &Tensor| {
        let element = match tensor.element {
            Element::Float32 => ElementType::Float32,
            Element::Float16 => ElementType::Float16,
            Element::Bfloat16 => ElementType::Bfloat16,
        };
        Weight::new(&library, tensor.name.clone(), &tensor.shape, element, Sessions::SEVERAL).unwrap()
    };
    let mut weights: Vec<Weight> = graph.tensors.iter().map(new).collect();
    let memory = weights.iter_mut().map(|weight| match weight.numbers_mut() {
        WeightNumbersMut::Float32(numbers) => NumbersMut::Float32(numbers),
        WeightNumbersMut::Float16(numbers) => NumbersMut::Float16(numbers),
        WeightNumbersMut::Bfloat16(numbers) => NumbersMut::Bfloat16(numbers),
    });
    checkpoint.read_weights(&graph, memory, NonZeroUsize::MIN, &|_| ()).unwrap();
    let built = BuiltGraph { name: folder.to_owned(), model: graph.model, weights, files: Vec::new() };
    Some(library.open_built(built, &[Provider::from(ProviderKind::Cpu)], Sessions::SEVERAL))
}
