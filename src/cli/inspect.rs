//! `karat inspect`: what a checkpoint would be served as, or everything that stands in the way.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use karat_checkpoint::{Checkpoint, Form};
use karat_engine::{
    engine::Engine,
    manifest,
    repository::{EXPECTED_FILE, Listed, LoadOptions, ModelSource, ModelStatus, References, Watch},
    telemetry::EngineMetrics,
};
use karat_hub::{Hub, HubSettings, ModelId};
use karat_runtime::{free_memory, ort::Library};
use prometheus::Registry;

use super::CommandError;
use crate::telemetry::{self, LogFormat};

/// Nothing waits in a queue here.
const QUEUE_TOKENS: usize = 1 << 20;

/// Flags of `karat inspect`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectArguments {
    /// The folder of a Hugging Face checkpoint or adapter, or of a manifest that names some, or a model of the Hub as
    /// org/name or org/name@revision.
    #[arg(value_name = "PLACE")]
    model: ModelSource,

    /// Write the manifest into the folder, with the digests of its files, or for a model of the Hub into a new folder of its
    /// name, to be changed there. Where a manifest lies already, it stays, and only the digests are added.
    #[arg(long)]
    write: bool,

    /// The ONNX Runtime library, with which the model is held to the scores in expected.json, if that lies in the folder; by
    /// default the one that "karat serve" would take.
    #[arg(long, env = "KARAT_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

/// Shows the manifest that a checkpoint gets, and what serving it takes.
#[expect(clippy::print_stdout, reason = "what was asked for goes to standard output")]
pub(super) fn inspect(arguments: &InspectArguments) -> Result<(), CommandError> {
    telemetry::start_logging("warn,karat_hub=info", LogFormat::Text)?;
    let InspectArguments { model, write, onnxruntime } = arguments;
    let hub = Hub::new(HubSettings::from_env());
    let folder = model.locate(&hub)?;
    let id = hub.snapshot_in(&folder).map(|snapshot| snapshot.id);
    if *write && id.is_none() && folder.join(manifest::FILE_NAME).is_file() {
        return pin(&folder);
    }
    let (origin, written) = manifest::checkpoint_of(&folder, &hub)?;
    let checkpoint = Checkpoint::read(&origin)?;
    let manifest = match (&id, written) {
        (_, Some(written)) => written,
        (Some(id), None) => by_id(checkpoint.manifest()?, id),
        (None, None) if *write => format!("{}\n{}", checkpoint.manifest()?, digests(&folder)?),
        (None, None) => checkpoint.manifest()?.to_owned(),
    };
    for id in origin.folders().filter_map(|folder| hub.snapshot_in(folder)).map(|snapshot| snapshot.id) {
        println!("# Of the Hugging Face Hub: {id}");
    }
    let references = match folder.join(EXPECTED_FILE).exists() {
        // Where it lies by now: nobody has to be asked again.
        true => Some(compare(&format!("{}={}", model.name(), folder.display()).parse()?, onnxruntime.as_deref())?),
        false => None,
    };
    let parameters = checkpoint.parameters();
    let stored: Vec<String> = checkpoint.types().into_iter().collect();
    println!("# {parameters} parameters, stored as {}, computed in 32 bits on the processor.", stored.join(" and "));
    let needed = checkpoint.graph().memory(true, checkpoint.is_decoder()) >> 20;
    match free_memory().map(|free| free >> 20) {
        Some(free) => println!("# Serving it takes {needed} MB of memory for weights; {free} MB are free here."),
        None => println!("# Serving it takes {needed} MB of memory for weights."),
    }
    let packed = Form::Packed(checkpoint.half());
    if checkpoint.has(packed) {
        let bytes = checkpoint.graph_for(packed)?.memory(false, true);
        println!("# On an NVIDIA GPU it takes {} MB, in 16 bits, beside its blocks of keys and values.", bytes >> 20);
    }
    match ["LICENSE", "LICENSE.txt", "LICENSE.md"].iter().find(|name| folder.join(name).is_file()) {
        Some(license) => println!("# Its licence: {license}"),
        None => println!("# No licence lies beside it: see the model's card."),
    }
    match references {
        Some(References { count, largest_difference, tolerance }) => {
            println!(
                "# {count} of {count} references within {tolerance}: the largest difference is {largest_difference:.1e}."
            );
        }
        None => println!("# No {EXPECTED_FILE} lies beside it: nobody has compared its scores with its authors'."),
    }
    checkpoint.reasons().iter().for_each(|reason| println!("# {reason}"));
    println!();
    print!("{manifest}");
    let unready = manifest::check_text(&folder, &hub).err();
    if *write {
        // The Hub's cache is no place to change anything in, and the manifest names a commit.
        let folder = if id.is_some() { PathBuf::from(model.name().as_str()) } else { folder };
        write_manifest(&folder, &manifest)?;
    }
    match unready {
        Some(reason) => Err(format!("it can't be served yet: {reason}").into()),
        None => Ok(()),
    }
}

/// The manifest of a model that stays where the Hub's cache has it.
fn by_id(manifest: &str, id: &ModelId) -> String {
    manifest.replacen("checkpoint = \".\"", &format!("checkpoint = \"hub:{id}\""), 1)
}

/// The table that pins what lies in a folder.
fn digests(folder: &Path) -> Result<String, CommandError> {
    manifest::digests(folder).map_err(|error| format!("{} can't be read: {error}", folder.display()).into())
}

/// Adds the digests of a model's files to the manifest that lies beside them.
fn pin(folder: &Path) -> Result<(), CommandError> {
    let path = folder.join(manifest::FILE_NAME);
    let failed = |error: std::io::Error| CommandError::from(format!("{}: {error}", path.display()));
    let written = fs::read_to_string(&path).map_err(failed)?;
    if written.lines().any(|line| line.trim() == "[digests]") {
        return Err(format!("{} pins digests already: remove the table first", path.display()).into());
    }
    fs::write(&path, format!("{}\n\n{}", written.trim_end(), digests(folder)?)).map_err(failed)
}

fn write_manifest(folder: &Path, manifest: &str) -> Result<(), CommandError> {
    let path = folder.join(manifest::FILE_NAME);
    if path.exists() {
        return Err(format!("{} exists: change it there, or remove it first", path.display()).into());
    }
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, manifest));
    written.map_err(|error| format!("{} can't be written: {error}", path.display()).into())
}

/// Loads a model, which holds it to what is expected of it.
fn compare(model: &ModelSource, onnxruntime: Option<&Path>) -> Result<References, CommandError> {
    let engine = Engine::new(0);
    let options = LoadOptions {
        repository: None,
        models: vec![model.clone()],
        hub: Hub::new(HubSettings::from_env()),
        queue_tokens: QUEUE_TOKENS,
        queue_time: None,
        calibration: Duration::ZERO,
        prefix_cache_bytes: 0,
        required: Vec::new(),
        watch: Watch::default(),
    };
    engine.load(&Library::load(onnxruntime)?, &EngineMetrics::register(&Registry::new())?, &options)?;
    if let Some(Listed { status: ModelStatus::Failed(reason), .. }) = engine.repository().models().get(model.name()) {
        return Err(reason.clone().into());
    }
    let references = engine.model(model.name())?.references;
    engine.repository().drain();
    references.ok_or_else(|| format!("{EXPECTED_FILE} was taken away meanwhile").into())
}
