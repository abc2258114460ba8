//! The same work on packed rows without a server: a checkpoint's own session, and every sample known in advance.
//!
//! Samples fill passes in their order, as they would in a server that never waits: no tokenising, no HTTP, no queue.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use clap::Args;
use karat_checkpoint::{Checkpoint, Element, Form, NumbersMut, Origin, Tensor};
use karat_rules::domain::{ElementType, TokenizedInput};
use karat_runtime::{
    Cancellation, Executor, Provider, ProviderKind, Readout, ScoresAt, TokenBatch,
    ort::{BuiltGraph, Graph, Library, Sessions, Weight, WeightNumbersMut},
    packed::{BLOCK_TOKENS, PackedRows, PackedSession},
    telemetry::{PackedMetrics, SharingMetrics},
};
use serde::Serialize;

use crate::{Failure, workload};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The checkpoint's folder
    #[arg(long)]
    checkpoint: PathBuf,
    /// The samples, one JSON object a line
    #[arg(long)]
    workload: PathBuf,
    /// The most tokens of a pass
    #[arg(long, default_value = "32768")]
    rows: NonZeroUsize,
    /// How often all samples are computed; the median counts
    #[arg(long, default_value = "3")]
    rounds: NonZeroUsize,
    /// What to run on: "cpu" or "cuda", which computes in 16 bits
    #[arg(long, default_value = "cpu")]
    provider: String,
    /// ONNX Runtime's library
    #[arg(long, env = "KARAT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    samples: usize,
    tokens: usize,
    passes: usize,
    /// The median of the rounds.
    seconds: f64,
    tokens_per_second: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let kind = ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == arguments.provider);
    let kind = kind.ok_or_else(|| format!("there is no provider {:?}", arguments.provider))?;
    let graph = open(&arguments.checkpoint, arguments.onnxruntime.as_deref(), kind)?;
    let model = graph.packed_model().ok_or("the graph takes no packed rows")?;
    let samples = workload::read(&arguments.workload)?;
    let inputs: Vec<Arc<TokenizedInput>> =
        samples.into_iter().map(workload::Sample::input).collect::<Result<_, _>>()?;
    let tokens = inputs.iter().map(|input| input.len()).sum();
    let samples = inputs.len();
    let groups = groups(inputs, arguments.rows.get());
    let blocks = groups.iter().map(|group| blocks_of(group)).max().and_then(NonZeroUsize::new);
    let blocks = blocks.ok_or("the workload has no samples")?;
    let passes: Vec<TokenBatch> = groups.into_iter().filter_map(TokenBatch::new).collect();
    let outputs = vec![model.outputs.first().ok_or("the graph gives nothing")?.name.clone()];
    let executor = graph.packed_executor(&outputs, blocks, threads(kind))?;
    let session = PackedSession::new(executor, PackedMetrics::unread()?);
    let scores_at = if model.causal { ScoresAt::End { padding: model.padding } } else { ScoresAt::Start };
    let readout = Arc::new(Readout { outputs, scores_at });
    let rows = PackedRows::new(session, readout, arguments.rows.get(), SharingMetrics::unread()?);
    let mut rows = rows.without_sharing();
    let mut round = || -> Result<f64, Failure> {
        let started = Instant::now();
        for pass in &passes {
            rows.run(pass, &Cancellation::default())?;
        }
        Ok(started.elapsed().as_secs_f64())
    };
    // The first passes of a session allocate what later ones reuse.
    round()?;
    let mut seconds = (0..arguments.rounds.get()).map(|_| round()).collect::<Result<Vec<_>, _>>()?;
    seconds.sort_by(f64::total_cmp);
    let seconds = seconds[seconds.len() / 2];
    #[expect(clippy::cast_precision_loss, reason = "no workload has 2^52 tokens")]
    let tokens_per_second = tokens as f64 / seconds;
    Ok(Report { samples, tokens, passes: passes.len(), seconds, tokens_per_second })
}

/// Samples in their order, so many tokens together.
fn groups(inputs: Vec<Arc<TokenizedInput>>, rows: usize) -> Vec<Vec<Arc<TokenizedInput>>> {
    let mut groups: Vec<Vec<Arc<TokenizedInput>>> = Vec::new();
    let mut filled = 0;
    for input in inputs {
        let fits = filled + input.len() <= rows;
        filled = if fits { filled + input.len() } else { input.len() };
        match groups.last_mut() {
            Some(group) if fits => group.push(input),
            _ => groups.push(vec![input]),
        }
    }
    groups
}

fn blocks_of(group: &[Arc<TokenizedInput>]) -> usize {
    group.iter().map(|input| input.len().div_ceil(BLOCK_TOKENS)).sum()
}

fn threads(kind: ProviderKind) -> NonZeroUsize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    if kind == ProviderKind::Cpu { cores() } else { NonZeroUsize::MIN }
}

/// The graph of packed rows of a checkpoint, as the server would open it.
fn open(folder: &Path, library: Option<&Path>, kind: ProviderKind) -> Result<Graph, Failure> {
    let library = Library::load(library)?;
    let checkpoint = Checkpoint::read(&Origin::whole(folder))?;
    let element = if kind == ProviderKind::Cuda { checkpoint.half() } else { Element::Float32 };
    let graph = checkpoint.graph_for(Form::Packed(element))?;
    let weight = |tensor: &Tensor| {
        let element = match tensor.element {
            Element::Float32 => ElementType::Float32,
            Element::Float16 => ElementType::Float16,
            Element::Bfloat16 => ElementType::Bfloat16,
        };
        Weight::new(&library, tensor.name.clone(), &tensor.shape, element, Sessions::SEVERAL)
    };
    let mut weights = graph.tensors.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
    let numbers = weights.iter_mut().map(|weight| match weight.numbers_mut() {
        WeightNumbersMut::Float32(numbers) => NumbersMut::Float32(numbers),
        WeightNumbersMut::Float16(numbers) => NumbersMut::Float16(numbers),
        WeightNumbersMut::Bfloat16(numbers) => NumbersMut::Bfloat16(numbers),
    });
    checkpoint.read_weights(&graph, numbers, threads(ProviderKind::Cpu), &|_| ())?;
    let built = BuiltGraph { name: folder.to_owned(), model: graph.model, weights, files: Vec::new() };
    Ok(library.open_built(built, &[Provider::from(kind)], Sessions::SEVERAL)?)
}
