//! The commands of the `karat` program, one file each.

#[cfg(feature = "offline")]
mod backend;
mod banner;
mod doctor;
#[cfg(feature = "offline")]
mod eval;
mod generate;
mod inspect;
mod keys;
mod manual;
#[cfg(feature = "offline")]
mod rows;
#[cfg(feature = "offline")]
mod score;
mod serve;
mod style;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Scores responses with ensembles of reward models.
#[derive(Debug, Parser)]
#[command(name = "karat", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of a repository over HTTP.
    Serve(Box<crate::settings::ServeSettings>),
    /// Show what this machine has for running graphs: libraries, GPUs, and which providers start.
    Doctor(doctor::DoctorArguments),
    #[cfg(feature = "offline")]
    /// Score a file of samples, and go on where an earlier run was stopped.
    Score(Box<score::ScoreArguments>),
    #[cfg(feature = "offline")]
    /// Tell how good a model is, from a file of preferences or of stored scores.
    Eval(Box<eval::EvalArguments>),
    /// Make keys for a server that wants them.
    Keys(keys::KeysArguments),
    /// Show what a checkpoint's folder would be served as, or everything that stands in the way.
    Inspect(inspect::InspectArguments),
    /// Print what lets a shell complete karat's commands and flags.
    Completions(manual::CompletionsArguments),
    /// Write the manual's pages.
    Manual(manual::ManualArguments),
    /// Write (or check) the files that are generated from the code.
    Generate(generate::GenerateArguments),
}

/// Runs the program with the process's arguments. An error goes to standard error with all its causes.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve(settings) => serve::serve(*settings),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        #[cfg(feature = "offline")]
        Command::Score(arguments) => score::score(&arguments),
        #[cfg(feature = "offline")]
        Command::Eval(arguments) => eval::eval(&arguments),
        Command::Keys(arguments) => keys::keys(arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments, &mut Arguments::command()),
        Command::Manual(arguments) => manual::manual(&arguments, Arguments::command()),
        Command::Generate(arguments) => generate::generate(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// What a command fails with; by now there is nothing left to do but to print it.
type CommandError = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::print_stderr, reason = "a command line program says there what went wrong")]
fn report(error: &dyn std::error::Error) {
    eprintln!("{} {error}", style::bad("karat:"));
}
