//! What a run's statistics add to a request for 32 known scores: `cargo bench --bench runs`, after `make setup`.
//!
//! Blocks of requests that belong to a run alternate in one process with blocks of the same requests that belong to none, so
//! that whatever else the machine does falls on both. A step has 1,024 samples, all of them different. Wall time is that of the requests; processor
//! time is that of the whole process, in which everything that a block left behind is folded in: on a machine whose every core
//! scores, that is what statistics take from it.
//!
//! `cargo bench --bench runs -- count` counts instructions in place of time, with Valgrind, whatever else the machine does:
//! of all threads, with requests folded in when they are many, as in a server that does nothing else. Valgrind makes
//! everything slower but the clock by which they are folded in as well, so that here that stands still.

#![allow(clippy::unwrap_used, reason = "a benchmark's input is its own")]
#![allow(clippy::print_stdout, reason = "its report goes to standard output")]

mod served;

use std::{
    hint::black_box,
    process::Command,
    time::{Duration, Instant},
};

use http::StatusCode;
use karat::api::RunSettings;
use served::{MODEL, Served, bodies};

/// How many requests make a block, which lasts a tenth of a second.
const BLOCK: usize = 1024;
/// How many requests make a step.
const STEP: usize = 32;
/// How many pairs of blocks are compared, unless the command line says another number.
const PAIRS: usize = 100;
/// How many steps are counted.
const COUNTED: usize = 60;

/// What a block of requests took.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    processor: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(PAIRS),
        ["count"] => count(),
        ["send", steps, run] => send(steps.parse().unwrap(), run == "within"),
        [pairs] => compare(pairs.parse().unwrap()),
        _ => panic!("write a number of pairs, or count"),
    }
}

/// Counts what a request takes, and what a run adds to it.
fn count() {
    let [start, without, within] =
        [(0, "without"), (COUNTED, "without"), (COUNTED, "within")].map(|(steps, run)| instructions(steps, run));
    let each = |more: f64, less: f64| (more - less) / (COUNTED * STEP) as f64;
    let (request, added) = (each(without, start), each(within, without));
    println!(
        "instructions of a request for 32 known scores: {request:.0}; a run adds {added:.0} ({:.2} %)",
        100.0 * added / request
    );
}

/// How many a process of its own takes that sends so many steps.
fn instructions(steps: usize, run: &str) -> f64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    let told = valgrind.args(["send", &steps.to_string(), run]).output();
    let told = told.unwrap_or_else(|error| panic!("valgrind: {error}"));
    let told = String::from_utf8(told.stderr).unwrap();
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    collected.unwrap_or_else(|| panic!("{told}")).1.trim().parse().unwrap()
}

/// Sends steps one by one, with everything known.
fn send(steps: usize, in_run: bool) {
    let settings = RunSettings { gather: Duration::MAX, ..RunSettings::default() };
    let (served, bodies) = (Served::with(&settings), bodies(MODEL, STEP));
    post(&served, "{", &bodies);
    for step in 0..steps {
        post(&served, &head(in_run, step), &bodies);
    }
    served.runs.close();
}

/// Compares blocks of requests, so many pairs.
fn compare(pairs: usize) {
    let (served, bodies) = (Served::new(), bodies(MODEL, STEP));
    let mut step = 0;
    let mut block = |in_run: bool| {
        let heads = (0..BLOCK / STEP).map(|_| {
            step += usize::from(in_run);
            head(in_run, step)
        });
        block(&served, &heads.collect::<Vec<_>>(), &bodies)
    };
    // Everything is known and warm before anything counts.
    block(false);
    block(true);
    let mut took = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        for in_run in if pair % 2 == 0 { [false, true] } else { [true, false] } {
            took[usize::from(in_run)].push(block(in_run));
        }
    }
    println!("{pairs} pairs of {BLOCK} requests for 32 known scores; microseconds a request, without a run and in one");
    for (what, time) in
        [("wall time", (|took| took.wall) as fn(&Took) -> Duration), ("processor time", |took| took.processor)]
    {
        let times = [0, 1].map(|in_run| took[in_run].iter().map(|took| micros(time(took))).collect::<Vec<f64>>());
        let ratios = times[0].iter().zip(&times[1]).map(|(without, within)| within / without - 1.0).collect();
        let [without, within] = times.map(sorted);
        println!(
            "{what}: fastest {:.1} and {:.1} ({:+.1} %), median {:.1} and {:.1}, median of the pairs' ratios {:+.1} %",
            without[0],
            within[0],
            100.0 * (within[0] / without[0] - 1.0),
            median(&without),
            median(&within),
            100.0 * median(&sorted(ratios)),
        );
    }
}

/// How the body of a request of a step begins, or of one that belongs to no run, with as many spaces instead: where its
/// texts lie in memory makes a difference of half a percent by itself.
fn head(in_run: bool, step: usize) -> String {
    let head = format!(r#"{{"run":"bench","step":{step},"#);
    if in_run { head } else { format!("{:width$}", "{", width = head.len()) }
}

/// Sends a step for each head, each from another place on the stack: how what is copied there lies to memory elsewhere makes
/// a difference of a percent, and another one in each process.
fn block(served: &Served, heads: &[String], bodies: &[String]) -> Took {
    let (begun, spent) = (Instant::now(), processor_time());
    for (depth, head) in heads.iter().enumerate() {
        at_depth(2 * depth, &|| post(served, head, bodies));
    }
    let wall = begun.elapsed();
    served.runs.close();
    Took { wall, processor: processor_time() - spent }
}

/// Does something so many frames of at least 64 bytes further down the stack.
fn at_depth(depth: usize, act: &dyn Fn()) {
    let frame = black_box([0_u8; 64]);
    if depth == 0 {
        act();
    } else {
        at_depth(depth - 1, act);
    }
    black_box(&frame);
}

/// Sends a step: each body with that head in place of its first byte. It is written as it is sent, so that it comes from
/// memory that the last request gave back, as one that arrives does.
fn post(served: &Served, head: &str, bodies: &[String]) {
    for body in bodies {
        assert_eq!(served.post([head, &body[1..]].concat()).0, StatusCode::OK);
    }
}

/// What all threads of this process have used.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().unwrap()
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / BLOCK as f64
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
