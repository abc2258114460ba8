//! `karat keys`: keys for those who may use a server.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use karat_engine::schedule::Priority;
use karat_rules::domain::ModelName;
use serde_json::Value;

use super::CommandError;
use crate::api::{KeyEntry, generate_key};

/// What to do with keys.
#[derive(Debug, Clone, Args)]
pub(super) struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum KeysCommand {
    /// Make a key: the key itself on standard error, once, and its line for the file of --keys on standard output.
    New(NewKey),
}

/// A key to make.
#[derive(Debug, Clone, Args)]
struct NewKey {
    /// Whose key it is, for logs.
    name: String,

    /// The models that it may use, separated by commas; all by default.
    #[arg(long, value_delimiter = ',', value_name = "MODEL")]
    models: Option<Vec<ModelName>>,

    /// How many tokens it may have scored a minute; as many as it likes by default.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_minute: Option<u64>,

    /// The highest priority that its requests get: low, normal or high; any by default.
    #[arg(long, value_parser = priority, value_name = "PRIORITY")]
    priority: Option<Priority>,

    /// Whether it may load and unload models.
    #[arg(long)]
    admin: bool,
}

fn priority(text: &str) -> Result<Priority, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| "write low, normal or high".to_owned())
}

pub(super) fn keys(arguments: KeysArguments) -> Result<(), CommandError> {
    let KeysCommand::New(new) = arguments.command;
    let NewKey { name, models, tokens_per_minute, priority, admin } = new;
    let (key, digest) = generate_key()?;
    let entry = KeyEntry { models, tokens_per_minute, priority, admin, ..KeyEntry::new(name, digest) };
    writeln!(io::stdout(), "{entry}")?;
    writeln!(io::stderr(), "{key}")?;
    Ok(())
}
