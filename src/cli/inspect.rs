//! `karat inspect`: what a checkpoint would be served as, or everything that stands in the way.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use karat_checkpoint::Checkpoint;
use karat_engine::{manifest, repository::ModelSource};
use karat_hub::{Hub, HubSettings, ModelId};
use karat_runtime::free_memory;

use super::CommandError;
use crate::telemetry::{self, LogFormat};

/// Flags of `karat inspect`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectArguments {
    /// The folder of a Hugging Face checkpoint or adapter, or a model of the Hub as org/name or org/name@revision.
    #[arg(value_name = "PLACE")]
    model: ModelSource,

    /// Write the manifest into the folder, or for a model of the Hub into a new folder of its name, to be changed there;
    /// what is there already stays.
    #[arg(long)]
    write: bool,
}

/// Shows the manifest that a checkpoint gets, and what serving it takes.
#[expect(clippy::print_stdout, reason = "what was asked for goes to standard output")]
pub(super) fn inspect(arguments: &InspectArguments) -> Result<(), CommandError> {
    telemetry::start_logging("warn,karat_hub=info", LogFormat::Text)?;
    let InspectArguments { model, write } = arguments;
    let hub = Hub::new(HubSettings::from_env());
    let folder = model.locate(&hub)?;
    let origin = manifest::origin(&folder, &hub)?;
    let checkpoint = Checkpoint::read(&origin)?;
    let id = hub.snapshot_in(&folder).map(|snapshot| snapshot.id);
    let manifest = match &id {
        Some(id) => by_id(checkpoint.manifest()?, id),
        None => checkpoint.manifest()?.to_owned(),
    };
    for id in origin.folders().filter_map(|folder| hub.snapshot_in(folder)).map(|snapshot| snapshot.id) {
        println!("# Of the Hugging Face Hub: {id}");
    }
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
        // The Hub's cache is no place to change anything in.
        let folder = if id.is_some() { PathBuf::from(model.name().as_str()) } else { folder };
        write_manifest(&folder, &manifest)?;
    }
    Ok(())
}

/// The manifest of a model that stays where the Hub's cache has it.
fn by_id(manifest: &str, id: &ModelId) -> String {
    manifest.replacen("checkpoint = \".\"", &format!("checkpoint = \"hub:{id}\""), 1)
}

fn write_manifest(folder: &Path, manifest: &str) -> Result<(), CommandError> {
    let path = folder.join(manifest::FILE_NAME);
    if path.exists() {
        return Err(format!("{} exists: change it there, or remove it first", path.display()).into());
    }
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, manifest));
    written.map_err(|error| format!("{} can't be written: {error}", path.display()).into())
}
