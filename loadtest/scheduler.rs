//! How much of the hardware the scheduler uses: its tokens a second over those of the best static plan.
//!
//! `cargo bench --bench scheduler -- --model models/relevance/model.onnx` runs both on the same graph in turn,
//! round after round, and prints medians:
//!
//! - **static plans**, which know every sample in advance: raw sessions pulling groups of similar length from a
//!   sorted list, for several budgets, with one thread a core and with one session on all cores;
//! - **closed loops**: clients that submit one sample, await it and submit the next.
//!
//! Besides the rate by the clock it prints tokens a second of processor time, which a busy machine disturbs less.
//! The scheduler runs with what calibration chooses, which is printed with the time that it took.

#![expect(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "a program for a terminal")]

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use karat_engine::schedule::{
    Job, QueueLimits, Scheduler,
    calibrate::{Calibrated, Conditions, Hardware, calibrate},
};
use karat_engine::telemetry::EngineMetrics;
use karat_rules::domain::{Cut, TokenizedInput};
use karat_runtime::{Cancellation, Executor, GraphBinding, Provider, TokenBatch, ort};
use tokio::task::JoinSet;

type Workload = Arc<[Arc<TokenizedInput>]>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
struct Arguments {
    /// The graph to run.
    #[arg(long, default_value = "models/relevance/model.onnx")]
    model: PathBuf,
    /// How many samples each measurement runs.
    #[arg(long, default_value_t = 300)]
    samples: usize,
    /// How often every measurement is repeated.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The median length, in tokens.
    #[arg(long, default_value_t = 160.0)]
    median: f64,
    /// The numbers of clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    clients: Vec<usize>,
    /// The budgets of the static plans, in padded tokens; 1 runs every sample alone.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 256, 512, 1024])]
    budgets: Vec<usize>,
    /// How long calibration may take; with 0 the scheduler runs with its defaults.
    #[arg(long, default_value_t = 2000)]
    calibration_ms: u64,
    /// What `cargo bench` passes to every target.
    #[arg(long, hide = true)]
    bench: bool,
}

const LONGEST: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
const MAX_BATCH_TOKENS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// What one measurement gave, round by round.
struct Series {
    name: String,
    by_clock: Vec<f64>,
    by_processor: Vec<f64>,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let cores = thread::available_parallelism()?;
    let graph = ort::Library::load(None)?
        .open(&ort::GraphFile { path: &arguments.model, providers: &[Provider::Cpu] }, ort::Sessions::SEVERAL)?;
    let binding = binding(&graph);
    let samples = workload(arguments.samples, arguments.median);
    let tokens: usize = samples.iter().map(|sample| sample.len()).sum();
    println!("{} samples, {tokens} tokens, {cores} cores, {}", samples.len(), arguments.model.display());

    let mut parallel: Vec<Box<dyn Executor>> =
        (0..cores.get()).map(|_| graph.executor(&binding, NonZeroUsize::MIN)).collect::<Result<_, _>>()?;
    let mut all_cores = vec![graph.executor(&binding, cores)?];
    let conditions = Conditions {
        hardware: Hardware::Processor { cores },
        longest: LONGEST,
        max_batch_tokens: MAX_BATCH_TOKENS,
        batch_invariant: graph.is_batch_invariant(),
        token: 100,
        time: Duration::from_millis(arguments.calibration_ms),
    };
    let started = Instant::now();
    let Calibrated { calibration, executors, .. } =
        calibrate(&conditions, &mut |threads| graph.executor(&binding, threads))?;
    println!("calibrated in {:.1} s, sessions included: {calibration:?}", started.elapsed().as_secs_f64());
    let limits = QueueLimits { tokens_per_second: calibration.tokens_per_second, ..QueueLimits::default() };
    let metrics = EngineMetrics::register(&prometheus::Registry::new())?.model(&"measured".parse()?);
    let scheduler = Arc::new(Scheduler::start(executors, calibration.policy(), limits, metrics)?);
    println!("resident: {} MiB", resident()? >> 20);

    let mut table: Vec<Series> = Vec::new();
    for _ in 0..arguments.rounds {
        for &budget in &arguments.budgets {
            let name = format!("static, {cores} × 1 thread, budget {budget}");
            record(&mut table, name, tokens, || run_static(&mut parallel, &groups(&samples, budget)))?;
        }
        record(&mut table, format!("static, 1 × {cores} threads, budget 1"), tokens, || {
            run_static(&mut all_cores, &groups(&samples, 1))
        })?;
        for &clients in &arguments.clients {
            record(&mut table, format!("scheduler, {clients} clients"), tokens, || {
                run_closed_loop(&scheduler, &samples, clients)
            })?;
        }
    }
    print_table(&table);
    Ok(())
}

fn record(
    table: &mut Vec<Series>,
    name: String,
    tokens: usize,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (started, processor) = (Instant::now(), processor_time()?);
    work()?;
    let by_clock = tokens as f64 / started.elapsed().as_secs_f64();
    let by_processor = tokens as f64 / (processor_time()? - processor).as_secs_f64();
    match table.iter_mut().find(|series| series.name == name) {
        Some(series) => {
            series.by_clock.push(by_clock);
            series.by_processor.push(by_processor);
        }
        None => table.push(Series { name, by_clock: vec![by_clock], by_processor: vec![by_processor] }),
    }
    Ok(())
}

fn print_table(table: &[Series]) {
    let best = table
        .iter()
        .filter(|series| series.name.starts_with("static"))
        .map(|series| median(&series.by_clock))
        .fold(f64::MIN, f64::max);
    println!("{:<36} {:>9} {:>6} {:>14}", "", "tokens/s", "ratio", "per CPU second");
    for series in table {
        let rate = median(&series.by_clock);
        println!("{:<36} {rate:>9.0} {:>6.2} {:>14.0}", series.name, rate / best, median(&series.by_processor));
    }
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Log-normal lengths up to 512 tokens, the same on every run.
fn workload(samples: usize, median: f64) -> Workload {
    const SPREAD: f64 = 0.7;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    (0..samples)
        .map(|_| {
            let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
            let length = (median * (SPREAD * normal).exp()).round().clamp(8.0, LONGEST.get() as f64) as usize;
            let ids = (0..length).map(|_| 1000 + (uniform() * 20_000.0) as u32).collect();
            let segments = (0..length).map(|at| u32::from(at > length / 2)).collect();
            TokenizedInput::new(ids, segments, 0..length, Cut::default()).map(Arc::new)
        })
        .map(|input| input.expect("as many segments as ids, and at least eight"))
        .collect()
}

/// Binds the inputs by the names that exporters give them.
fn binding(graph: &ort::Graph) -> GraphBinding {
    let input = |name: &str| graph.signature().inputs.iter().find(|input| input.name == name).map(|_| name.to_owned());
    GraphBinding {
        input_ids: "input_ids".to_owned(),
        attention_mask: input("attention_mask"),
        token_type_ids: input("token_type_ids"),
        position_ids: input("position_ids"),
        outputs: graph.signature().outputs.iter().map(|output| output.name.clone()).collect(),
        pad_id: 0,
    }
}

/// Cuts the samples, sorted by length, into groups of at most `budget` padded tokens, the longest first.
fn groups(samples: &[Arc<TokenizedInput>], budget: usize) -> Vec<TokenBatch> {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|sample| std::cmp::Reverse(sample.len()));
    let mut groups: Vec<Vec<Arc<TokenizedInput>>> = Vec::new();
    for sample in sorted {
        match groups.last_mut() {
            Some(group) if (group.len() + 1) * group[0].len() <= budget => group.push(sample),
            _ => groups.push(vec![sample]),
        }
    }
    groups.into_iter().filter_map(TokenBatch::new).collect()
}

fn run_static(executors: &mut [Box<dyn Executor>], batches: &[TokenBatch]) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    thread::scope(|scope| {
        for executor in executors {
            scope.spawn(|| {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = executor.run(batch, &Cancellation::new()) {
                        *failure.lock().expect("no holder panics") = Some(error.into());
                        return;
                    }
                }
            });
        }
    });
    failure.into_inner()?.map_or(Ok(()), Err)
}

fn run_closed_loop(scheduler: &Arc<Scheduler>, samples: &Workload, clients: usize) -> Result<(), Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let client = |scheduler: Arc<Scheduler>, samples: Workload, next: Arc<AtomicUsize>| async move {
        while let Some(sample) = samples.get(next.fetch_add(1, Ordering::Relaxed)) {
            for ticket in scheduler.submit(vec![Job::new(Arc::clone(sample))])? {
                ticket.await?;
            }
        }
        Ok::<(), Failure>(())
    };
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let mut running = JoinSet::new();
        for _ in 0..clients {
            running.spawn(client(Arc::clone(scheduler), Arc::clone(samples), Arc::clone(&next)));
        }
        running.join_all().await.into_iter().collect()
    })
}

fn processor_time() -> Result<Duration, Failure> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS_PER_SECOND))
}

fn resident() -> Result<usize, Failure> {
    const PAGE: usize = 4096;
    let statm = fs::read_to_string(Path::new("/proc/self/statm"))?;
    let pages: usize = statm.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(pages * PAGE)
}
