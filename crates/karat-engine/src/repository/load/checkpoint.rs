//! Graphs that are built from a checkpoint when a model is loaded.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use karat_checkpoint::{Checkpoint, Element, Form, NumbersMut};
use karat_rules::domain::{ElementType, ModelName};
use karat_runtime::{
    FileIdentity, Provider, ProviderKind, free_memory,
    ort::{BuiltGraph, Graph, Library, Sessions, Weight, WeightNumbersMut},
};

use super::{
    decoder,
    sessions::{self, cores},
};
use crate::{
    manifest::{CheckpointForm, GraphDefinition, ManifestError},
    repository::LoadError,
};

/// How often somebody who waits is told how far reading has come.
const PROGRESS: Duration = Duration::from_secs(5);

/// What a checkpoint is opened with.
pub(super) struct Opening<'a> {
    pub(super) library: &'a Library,
    pub(super) name: &'a ModelName,
    pub(super) definition: &'a GraphDefinition,
    /// The files that several graphs have among their weights.
    pub(super) twins: &'a BTreeSet<FileIdentity>,
    /// The tokens whose logits are read; all where there are none.
    pub(super) tokens: &'a BTreeSet<u32>,
}

/// The first of the providers that starts, or the last one, which then says why it doesn't.
fn provider(library: &Library, providers: &[Provider]) -> ProviderKind {
    let kinds = || providers.iter().map(Provider::kind);
    kinds()
        .find(|kind| library.try_provider(*kind).is_ok())
        .or_else(|| kinds().next_back())
        .unwrap_or(ProviderKind::Cpu)
}

/// The form that the manifest says, or the one that suits the provider.
fn form(checkpoint: &Checkpoint, written: Option<CheckpointForm>, provider: ProviderKind) -> Form {
    let on_cuda = provider == ProviderKind::Cuda;
    match written {
        None if on_cuda => checkpoint.form_on_gpu(),
        None | Some(CheckpointForm::Rows) if provider == ProviderKind::Cpu => Form::Rows,
        None | Some(CheckpointForm::Rows) => Form::GpuRows,
        Some(CheckpointForm::HalfRows) => Form::HalfRows,
        Some(CheckpointForm::Rounded) => Form::Rounded(checkpoint.half()),
        Some(CheckpointForm::Packed) if on_cuda => Form::Packed(checkpoint.half()),
        Some(CheckpointForm::Packed) => Form::Packed(Element::Float32),
    }
}

/// Whether a provider has the operators of a form: those of packed rows in 16 bits are CUDA's alone.
fn takes(provider: ProviderKind, form: Form) -> bool {
    match form {
        Form::Rows | Form::GpuRows | Form::HalfRows | Form::Packed(Element::Float32) | Form::Rounded(_) => true,
        Form::Packed(Element::Float16 | Element::Bfloat16) => provider == ProviderKind::Cuda,
    }
}

fn element_type(element: Element) -> ElementType {
    match element {
        Element::Float32 => ElementType::Float32,
        Element::Float16 => ElementType::Float16,
        Element::Bfloat16 => ElementType::Bfloat16,
    }
}

impl Opening<'_> {
    /// Reads a checkpoint into memory, each weight once, and starts its first session. Nothing of it depends on the files
    /// afterwards. Gives a digest of what was read as well.
    pub(super) fn open(&self, folder: &Path, checkpoint: &Checkpoint) -> Result<(Graph, [u8; 32]), LoadError> {
        self.check_length(checkpoint.context())?;
        let form = self.form(checkpoint);
        self.read(folder, checkpoint, checkpoint.graph_reading(form, self.tokens)?, form)
    }

    /// The same of the graph that embeds images, of a checkpoint that has one beside that of texts.
    pub(super) fn open_images(
        &self,
        folder: &Path,
        checkpoint: &Checkpoint,
    ) -> Result<Option<(Graph, [u8; 32])>, LoadError> {
        let form = self.form(checkpoint);
        let graph = checkpoint.images_for(form)?;
        graph.map(|graph| self.read(folder, checkpoint, graph, form)).transpose()
    }

    fn form(&self, checkpoint: &Checkpoint) -> Form {
        form(checkpoint, self.definition.form, provider(self.library, &self.definition.providers))
    }

    fn read(
        &self,
        folder: &Path,
        checkpoint: &Checkpoint,
        graph: karat_checkpoint::Graph,
        form: Form,
    ) -> Result<(Graph, [u8; 32]), LoadError> {
        let provider = provider(self.library, &self.definition.providers);
        let mut sessions = self.sessions(form, checkpoint.is_decoder(), provider);
        // What other models have as well is lent to all, not given to one.
        sessions.alone &=
            !checkpoint.files().into_iter().filter_map(FileIdentity::of).any(|file| self.twins.contains(&file));
        let on_processor = provider == ProviderKind::Cpu;
        sessions.alone &= !self.wants_singles(form, checkpoint, &graph, provider);
        check_memory(folder, graph.memory(on_processor, sessions.alone), free_memory())?;
        let runtime = |source| LoadError::Runtime { path: self.definition.manifest.clone(), source };
        let memory = graph.tensors.iter().map(|tensor| {
            Weight::new(self.library, tensor.name.clone(), &tensor.shape, element_type(tensor.element), sessions)
        });
        let mut weights = memory.collect::<Result<Vec<_>, _>>().map_err(runtime)?;
        let progress = Progress::start(self.name, checkpoint.parameters());
        let numbers = weights.iter_mut().map(|weight| match weight.numbers_mut() {
            WeightNumbersMut::Float32(numbers) => NumbersMut::Float32(numbers),
            WeightNumbersMut::Float16(numbers) => NumbersMut::Float16(numbers),
            WeightNumbersMut::Bfloat16(numbers) => NumbersMut::Bfloat16(numbers),
        });
        let digest = checkpoint.read_weights(&graph, numbers, threads(), &|read| progress.tell(read))?;
        tracing::info!(model = %self.name, seconds = progress.seconds(), "weights read, starting the session");
        let files = checkpoint.files().into_iter().map(Path::to_owned).collect();
        let built = BuiltGraph { name: folder.join("checkpoint"), model: graph.model, weights, files };
        let providers = self.definition.providers.iter().filter(|provider| takes(provider.kind(), form));
        let providers: Vec<Provider> = providers.cloned().collect();
        let graph = self.library.open_built(built, &providers, sessions).map_err(runtime)?;
        tracing::info!(model = %self.name, seconds = progress.seconds(), "session started, warming up");
        Ok((graph, digest))
    }

    /// Whether sessions of one thread are worth it that weights lie in memory twice while they start: where that leaves
    /// as much free again.
    fn wants_singles(
        &self,
        form: Form,
        checkpoint: &Checkpoint,
        graph: &karat_checkpoint::Graph,
        provider: ProviderKind,
    ) -> bool {
        let weight_bytes = graph.memory(false, false);
        let singles = decoder::singles(&self.definition.scheduling, provider, weight_bytes);
        let needed = graph.memory(true, false).saturating_mul(2);
        form == Form::Rows && checkpoint.is_decoder() && singles > 0 && free_memory().is_none_or(|free| free >= needed)
    }

    /// How the graph's sessions will be asked for.
    fn sessions(&self, form: Form, is_decoder: bool, provider: ProviderKind) -> Sessions {
        match form {
            // Graphs of images choose their threads when they start.
            Form::Rows | Form::GpuRows if self.definition.image.is_some() => Sessions::SEVERAL,
            Form::Rows | Form::GpuRows if is_decoder => decoder::sessions(self.definition),
            Form::Rows | Form::GpuRows => sessions::sessions(self.definition),
            Form::Packed(Element::Float32) | Form::Rounded(_) if provider == ProviderKind::Cpu => {
                decoder::sessions(self.definition)
            }
            // They are lent to devices, of which there may be several; and numbers of 16 bits are lent wherever they are.
            Form::HalfRows | Form::Packed(_) | Form::Rounded(_) => Sessions::SEVERAL,
        }
    }

    /// A graph that is built here has positions for so many tokens, and nobody has to try whether it takes them.
    fn check_length(&self, context: usize) -> Result<(), LoadError> {
        let longest = self.definition.longest().get();
        if longest <= context {
            return Ok(());
        }
        Err(LoadError::Manifest(ManifestError::Key {
            path: self.definition.manifest.clone(),
            key: "text.max_tokens".to_owned(),
            found: format!("samples may have {longest} tokens, and the checkpoint has positions for {context}"),
            wanted: format!("write max_tokens = {context} or less"),
        }))
    }
}

/// Refuses what doesn't fit before anything of it is read, where it can be told.
fn check_memory(folder: &Path, needed: u64, free: Option<u64>) -> Result<(), LoadError> {
    match free {
        Some(free) if free < needed => Err(LoadError::Memory { folder: folder.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Reading more than a few files at once makes no disk faster, and leaves cores to models that are served meanwhile.
fn threads() -> NonZeroUsize {
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
    cores().min(MOST)
}

/// Tells those who wait how far reading has come.
struct Progress<'a> {
    model: &'a ModelName,
    all: usize,
    started: Instant,
    told: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    fn start(model: &'a ModelName, all: usize) -> Self {
        let started = Instant::now();
        Self { model, all: all.max(1), started, told: Mutex::new(started) }
    }

    fn seconds(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }

    fn tell(&self, read: usize) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() < PROGRESS {
            return;
        }
        *told = Instant::now();
        let elapsed = self.started.elapsed();
        let left = elapsed.mul_f64((self.all - read.min(self.all)) as f64 / read.max(1) as f64);
        let rate = read as f64 / 1e6 / elapsed.as_secs_f64();
        let (percent, rate) = (read * 100 / self.all, rate.round());
        tracing::info!(model = %self.model, percent, million_numbers_a_second = rate, seconds_left = left.as_secs(), "reading weights");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let check = |free| check_memory(Path::new("large"), 31 << 30, free);
        let error = check(Some(5 << 30)).unwrap_err().to_string();
        assert!(error.contains("large") && error.contains("31744 MB") && error.contains("5120 MB"), "{error}");
        assert!(check(Some(31 << 30)).is_ok() && check(None).is_ok());
    }
}
