//! `karat inspect`: what a checkpoint's folder would be served as, or everything that stands in the way.

use std::{fs, path::PathBuf};

use clap::Args;
use karat_checkpoint::Checkpoint;
use karat_engine::manifest;
use karat_runtime::free_memory;

use super::CommandError;

/// Flags of `karat inspect`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectArguments {
    /// The folder of a Hugging Face checkpoint.
    folder: PathBuf,

    /// Write the manifest into the folder, to be changed there; what is there already stays.
    #[arg(long)]
    write: bool,
}

/// Shows the manifest that a checkpoint gets, and what serving it takes.
#[expect(clippy::print_stdout, reason = "what was asked for goes to standard output")]
pub(super) fn inspect(arguments: &InspectArguments) -> Result<(), CommandError> {
    let InspectArguments { folder, write } = arguments;
    let checkpoint = Checkpoint::read(folder)?;
    let manifest = checkpoint.manifest()?;
    let parameters = checkpoint.parameters();
    let stored: Vec<String> = checkpoint.types().into_iter().collect();
    println!("# {parameters} parameters, stored as {}, computed in 32 bits on the processor.", stored.join(" and "));
    let needed = checkpoint.memory(checkpoint.is_decoder()) >> 20;
    match free_memory().map(|free| free >> 20) {
        Some(free) => println!("# Serving it takes {needed} MB of memory for weights; {free} MB are free here."),
        None => println!("# Serving it takes {needed} MB of memory for weights."),
    }
    match ["LICENSE", "LICENSE.txt", "LICENSE.md"].iter().find(|name| folder.join(name).is_file()) {
        Some(license) => println!("# Its licence: {license}"),
        None => println!("# No licence lies beside it: see the model's card."),
    }
    println!();
    print!("{manifest}");
    if *write {
        let path = folder.join(manifest::FILE_NAME);
        if path.exists() {
            return Err(format!("{} exists: change it there, or remove it first", path.display()).into());
        }
        fs::write(&path, manifest).map_err(|error| format!("{} can't be written: {error}", path.display()))?;
    }
    Ok(())
}
