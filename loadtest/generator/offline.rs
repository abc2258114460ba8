//! The same work without a server: raw sessions and the best that can be known in advance.
//!
//! A static plan sees every sample beforehand, sorts by length, and never waits. Nothing that serves requests as they
//! come can be expected to be faster, so this is what a server is measured against.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use karat_rules::domain::TokenizedInput;
use karat_runtime::{Cancellation, Executor, GraphBinding, Provider, ProviderKind, TokenBatch, ort};
use serde::Serialize;

use crate::{
    Failure,
    report::{Times, TimesReport},
    workload,
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    graph: GraphOptions,
    /// How many sessions, each on a thread of its own
    #[arg(long, default_value = "1")]
    sessions: NonZeroUsize,
    /// The most positions of a group of several samples, padding included; 1 runs each sample alone
    #[arg(long, default_value_t = 1)]
    budget: usize,
}

#[derive(Debug, Args)]
pub(crate) struct BareArguments {
    #[command(flatten)]
    graph: GraphOptions,
    /// How many forward passes
    #[arg(long, default_value_t = 200)]
    passes: usize,
    /// Stop after this long, whatever is left
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    at_most: f64,
    /// Rest so long between two passes, as a session does while a server and its client do their part
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    rest: u64,
}

#[derive(Debug, Args)]
struct GraphOptions {
    /// The ONNX file
    #[arg(long)]
    graph: PathBuf,
    /// The samples, one JSON object a line
    #[arg(long)]
    workload: PathBuf,
    /// Take only the first so many samples
    #[arg(long)]
    samples: Option<usize>,
    /// How many threads each session computes on
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// What to run on: "cpu", "cuda" or "tensorrt"
    #[arg(long, default_value = "cpu")]
    provider: String,
    /// ONNX Runtime's library
    #[arg(long, env = "KARAT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seconds: f64,
    samples: usize,
    tokens: usize,
    /// Positions computed, padding included.
    positions: usize,
    tokens_per_second: f64,
    /// Processor time of the passes.
    cpu_seconds: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct BareReport {
    tokens: usize,
    latency_ms: Option<TimesReport>,
}

impl GraphOptions {
    fn open(&self) -> Result<(ort::Graph, GraphBinding), Failure> {
        let library = ort::Library::load(self.onnxruntime.as_deref())?;
        let graph = library
            .open(&ort::GraphFile { path: &self.graph, providers: &[self.provider()?] }, ort::Sessions::SEVERAL)?;
        let binding = bind(&graph, &self.graph)?;
        Ok((graph, binding))
    }

    fn provider(&self) -> Result<Provider, Failure> {
        let known = ProviderKind::ALL.into_iter().find(|kind| kind.as_str() == self.provider);
        known.map(Provider::from).ok_or_else(|| format!("there is no provider {:?}", self.provider).into())
    }

    fn inputs(&self) -> Result<Vec<Arc<TokenizedInput>>, Failure> {
        let samples = workload::read(&self.workload)?;
        samples.into_iter().take(self.samples.unwrap_or(usize::MAX)).map(workload::Sample::input).collect()
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let (graph, binding) = arguments.graph.open()?;
    let inputs = arguments.graph.inputs()?;
    let (samples, tokens) = (inputs.len(), inputs.iter().map(|input| input.len()).sum());
    let groups = group(inputs, arguments.budget);
    let mut sessions: Vec<Box<dyn Executor>> = (0..arguments.sessions.get())
        .map(|_| graph.executor(&binding, arguments.graph.threads))
        .collect::<Result<_, _>>()?;
    // The first pass of a session allocates what later ones reuse.
    for session in &mut sessions {
        for batch in groups.iter().take(2) {
            session.run(batch, &Cancellation::default())?;
        }
    }

    let next = AtomicUsize::new(0);
    let (started, used) = (Instant::now(), processor_seconds()?);
    thread::scope(|scope| {
        let workers: Vec<_> =
            sessions.iter_mut().map(|session| scope.spawn(|| drain(session.as_mut(), &groups, &next))).collect();
        let ended = workers.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked")?);
        ended.collect::<Result<Vec<()>, Failure>>()
    })?;
    let elapsed = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "no workload has 2^52 tokens")]
    let tokens_per_second = tokens as f64 / elapsed;
    let cpu_seconds = processor_seconds()? - used;
    let positions = groups.iter().map(TokenBatch::padded_tokens).sum();
    Ok(Report { seconds: elapsed, samples, tokens, positions, tokens_per_second, cpu_seconds })
}

/// The processor time of this process so far, which a busy machine disturbs less than the clock.
fn processor_seconds() -> Result<f64, Failure> {
    const TICKS_A_SECOND: f64 = 100.0;
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name in front may hold spaces; the 14th and 15th fields are the times.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    let ticks = fields.ok_or("/proc/self/stat is not as proc(5) says")?.map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_A_SECOND)
}

fn drain(session: &mut dyn Executor, groups: &[TokenBatch], next: &AtomicUsize) -> Result<(), Failure> {
    while let Some(batch) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
        session.run(batch, &Cancellation::default())?;
    }
    Ok(())
}

/// Groups of similar length, the longest first, so that the sessions end together.
fn group(mut inputs: Vec<Arc<TokenizedInput>>, budget: usize) -> Vec<TokenBatch> {
    inputs.sort_by_key(|input| std::cmp::Reverse(input.len()));
    let mut rest = inputs.as_slice();
    let mut groups = Vec::new();
    while let Some(longest) = rest.first() {
        let count = (budget / longest.len()).clamp(1, rest.len());
        groups.extend(TokenBatch::new(rest[..count].to_vec()));
        rest = &rest[count..];
    }
    groups
}

pub(crate) fn bare(arguments: &BareArguments) -> Result<BareReport, Failure> {
    let (graph, binding) = arguments.graph.open()?;
    let inputs = arguments.graph.inputs()?;
    let batches: Vec<TokenBatch> = inputs.into_iter().map(TokenBatch::single).collect();
    let mut session = graph.executor(&binding, arguments.graph.threads)?;
    for batch in batches.iter().cycle().take(10) {
        session.run(batch, &Cancellation::default())?;
    }
    let mut times = Times::new()?;
    let (started, limit) = (Instant::now(), Duration::from_secs_f64(arguments.at_most));
    for batch in batches.iter().cycle().take(arguments.passes) {
        if arguments.rest > 0 {
            thread::sleep(Duration::from_micros(arguments.rest));
        }
        let began = Instant::now();
        session.run(batch, &Cancellation::default())?;
        times.record(began.elapsed());
        if started.elapsed() > limit {
            break;
        }
    }
    let tokens = batches.iter().map(TokenBatch::longest).max().unwrap_or(0);
    Ok(BareReport { tokens, latency_ms: times.report() })
}

/// The inputs by their usual names, and every output.
fn bind(graph: &ort::Graph, path: &Path) -> Result<GraphBinding, Failure> {
    let signature = graph.signature();
    let input = |name: &str| signature.inputs.iter().any(|input| input.name == name).then(|| name.to_owned());
    Ok(GraphBinding {
        input_ids: input("input_ids").ok_or_else(|| format!("{}: there is no input input_ids", path.display()))?,
        attention_mask: input("attention_mask"),
        token_type_ids: input("token_type_ids"),
        position_ids: input("position_ids"),
        outputs: signature.outputs.iter().map(|output| output.name.clone()).collect(),
        pad_id: 0,
    })
}
