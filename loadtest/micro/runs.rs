//! What a run's statistics add to a request for 32 known scores: `cargo bench --bench runs`, after `make setup`.
//!
//! Blocks of requests that belong to a run alternate in one process with blocks of the same requests that belong to none, so
//! that whatever else the machine does falls on both. A step has 1,024 samples. Wall time is that of the requests; processor
//! time is that of the whole process, in which everything that a block left behind is folded in: on a machine whose every core
//! scores, that is what statistics take from it.
//!
//! `cargo bench --bench runs -- count` counts instructions in place of time, with Valgrind, whatever else the machine does:
//! of all threads, with as many requests folded in together as gather in a server that does nothing else. Valgrind makes
//! everything slower but the clock by which requests gather, so that here they are folded in when they are as many.

#![allow(clippy::unwrap_used, reason = "a benchmark's input is its own")]
#![allow(clippy::print_stdout, reason = "its report goes to standard output")]

mod served;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use http::StatusCode;
use karat::api::RunSettings;
use served::{MODEL, Served, body};

/// How many requests make a block, which lasts a tenth of a second.
const BLOCK: usize = 1024;
/// How many requests make a step.
const STEP: usize = 32;
/// How many pairs of blocks are compared, unless the command line says another number.
const PAIRS: usize = 100;
/// How many steps are counted.
const COUNTED: usize = 60;
/// How many steps are folded in together: 480 requests, of nearly 10,000 a second what gathers in 50 ms.
const FOLDED: usize = 15;

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
        ["count"] => count(FOLDED),
        ["count", folded] => count(folded.parse().unwrap()),
        ["send", steps, run, folded] => send(steps.parse().unwrap(), run == "within", folded.parse().unwrap()),
        [pairs] => compare(pairs.parse().unwrap()),
        _ => panic!("write a number of pairs, or count and of how many steps requests are folded together"),
    }
}

/// Counts what a request takes, and what a run adds to it.
fn count(folded: usize) {
    let [start, without, within] = [(0, "without"), (COUNTED, "without"), (COUNTED, "within")]
        .map(|(steps, run)| instructions(steps, run, folded));
    let each = |more: f64, less: f64| (more - less) / (COUNTED * STEP) as f64;
    let (request, added) = (each(without, start), each(within, without));
    println!(
        "instructions of a request for 32 known scores: {request:.0}; a run adds {added:.0} ({:.2} %)",
        100.0 * added / request
    );
}

/// How many a process of its own takes that sends so many steps.
fn instructions(steps: usize, run: &str, folded: usize) -> f64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    let told = valgrind.args(["send", &steps.to_string(), run, &folded.to_string()]).output();
    let told = told.unwrap_or_else(|error| panic!("valgrind: {error}"));
    let told = String::from_utf8(told.stderr).unwrap();
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    collected.unwrap_or_else(|| panic!("{told}")).1.trim().parse().unwrap()
}

/// Sends steps one by one, with everything known, and folds so many in together.
fn send(steps: usize, in_run: bool, folded: usize) {
    let settings = RunSettings { gather: Duration::MAX, ..RunSettings::default() };
    let (served, plain) = (Served::with(&settings), body(MODEL));
    post(&served, "{", &plain[1..]);
    for step in 0..steps {
        post(&served, &head(in_run.then_some(step)), &plain[1..]);
        if (step + 1) % folded == 0 {
            served.runs.close();
        }
    }
    served.runs.close();
}

/// Compares blocks of requests, so many pairs.
fn compare(pairs: usize) {
    let (served, plain) = (Served::new(), body(MODEL));
    let mut step = 0;
    let mut block = |in_run: bool| {
        let heads = (0..BLOCK / STEP).map(|_| {
            step += usize::from(in_run);
            head(in_run.then_some(step))
        });
        block(&served, &heads.collect::<Vec<_>>(), &plain[1..])
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

/// How the body of a request of a step begins, or of one that belongs to no run.
fn head(step: Option<usize>) -> String {
    step.map_or_else(|| "{".to_owned(), |step| format!(r#"{{"run":"bench","step":{step},"#))
}

/// Sends a step for each head.
fn block(served: &Served, heads: &[String], rest: &str) -> Took {
    let (begun, spent) = (Instant::now(), processor_time());
    heads.iter().for_each(|head| post(served, head, rest));
    let wall = begun.elapsed();
    served.runs.close();
    Took { wall, processor: processor_time() - spent }
}

/// Sends as many requests as make a step. A body is written as it is sent, so that it comes from memory that the last
/// request gave back, as one that arrives does.
fn post(served: &Served, head: &str, rest: &str) {
    for _ in 0..STEP {
        assert_eq!(served.post([head, rest].concat()).0, StatusCode::OK);
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
