//! Load for a scoring server, and the same work without one.
//!
//! ```text
//! workload ─▶ dialect ─▶ plan ─▶ closed | open | hang_up ─▶ client ─▶ report (JSON on standard output)
//!         └────────────────────▶ offline, packed, bare             ─▶ report
//! ```
//!
//! It shares the machine with the server it measures, so it does little while it measures: one thread, request bodies
//! written beforehand, replies counted and not parsed. `make bench` calls it; `loadtest/README.md` says how to read
//! what it reports. By hand:
//!
//! ```text
//! cargo run --release --example loadtest -- closed --url http://127.0.0.1:8080 --workload FILE --clients 64
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's report goes to standard output")]

mod client;
mod closed;
mod dialect;
mod hang_up;
mod offline;
mod open;
mod packed;
mod plan;
mod report;
mod run;
mod workload;

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::{client::Client, dialect::Dialect, plan::PlanOptions, run::RunOptions};

/// Any failure ends the run: half a measurement is none.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "Puts load on a scoring server, or runs the same work without one")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Clients that each wait for their reply before they send again
    Closed {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        run: RunOptions,
        /// How many clients
        #[arg(long)]
        clients: usize,
        /// Send the workload again and again for this long, instead of once
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<f64>,
    },
    /// Requests that arrive at random whether or not earlier ones were answered
    Open {
        #[command(flatten)]
        target: Target,
        /// The mean number of requests a second
        #[arg(long)]
        rate: f64,
        /// How long requests arrive
        #[arg(long)]
        seconds: f64,
        /// A reply counts as good only when it comes within this many milliseconds
        #[arg(long, value_name = "MS")]
        good_within_ms: Option<u64>,
    },
    /// Clients that connect, send a request and leave without its reply
    HangUp {
        #[command(flatten)]
        target: Target,
        /// How many clients
        #[arg(long)]
        clients: usize,
        /// How many of them are connected at once
        #[arg(long, default_value_t = 500)]
        at_once: usize,
        /// How long each stays after its request
        #[arg(long, value_name = "MS", default_value_t = 100)]
        stay_ms: u64,
    },
    /// Raw sessions with every sample known in advance, by one static plan
    Offline(offline::Arguments),
    /// A checkpoint's packed rows with every sample known in advance, in their order
    Packed(packed::Arguments),
    /// One raw session, one sample after another: what a single request costs without a server
    Bare(offline::BareArguments),
}

/// Where requests go and what they hold.
#[derive(Debug, Args)]
struct Target {
    /// The server, such as <http://127.0.0.1:8080>
    #[arg(long)]
    url: http::Uri,
    /// The shape of its requests
    #[arg(long, value_enum, default_value_t = Dialect::Karat)]
    dialect: Dialect,
    /// The model, where requests name one
    #[arg(long, default_value = "relevance")]
    model: String,
    /// The key that requests come with, where the server wants one; clients that leave send none
    #[arg(long)]
    key: Option<String>,
    /// Stop after this long, whatever is left
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    at_most: f64,
    #[command(flatten)]
    plan: PlanOptions,
}

impl Target {
    fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.url, self.dialect.path(), self.key.as_deref())
    }

    fn plan(&self) -> Result<Vec<plan::Request>, Failure> {
        plan::build(&self.plan, self.dialect, &self.model)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.at_most)
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse().mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(mode: &Mode) -> Result<(), Failure> {
    match mode {
        Mode::Offline(arguments) => return print(&offline::run(arguments)?),
        Mode::Packed(arguments) => return print(&packed::run(arguments)?),
        Mode::Bare(arguments) => return print(&offline::bare(arguments)?),
        Mode::Closed { .. } | Mode::Open { .. } | Mode::HangUp { .. } => {}
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match mode {
            Mode::Closed { target, run, clients, seconds } => {
                let clients = closed::Clients {
                    count: *clients,
                    run: run.clone(),
                    seconds: seconds.map(Duration::from_secs_f64),
                };
                print(&closed::run(target.client()?, target.plan()?, clients, target.limit()).await?)
            }
            Mode::Open { target, rate, seconds, good_within_ms } => {
                let arrivals = open::Arrivals {
                    rate: *rate,
                    window: Duration::from_secs_f64(*seconds),
                    good_within: good_within_ms.map(Duration::from_millis),
                    seed: target.plan.seed,
                };
                print(&open::run(target.client()?, target.plan()?, arrivals, target.limit()).await?)
            }
            Mode::HangUp { target, clients, at_once, stay_ms } => {
                let leavers =
                    hang_up::Leavers { clients: *clients, at_once: *at_once, stay: Duration::from_millis(*stay_ms) };
                print(&hang_up::run(&target.client()?, target.plan()?, leavers, target.limit()).await?)
            }
            Mode::Offline(_) | Mode::Packed(_) | Mode::Bare(_) => Ok(()),
        }
    })
}

fn print(report: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// An error with all that caused it.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string can't fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
