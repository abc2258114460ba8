//! `karat inspect`: what a checkpoint's folder would be served as, or everything that stands in the way.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use karat_checkpoint::Checkpoint;
use karat_engine::{
    engine::Engine,
    manifest,
    repository::{EXPECTED_FILE, LoadOptions, ModelStatus, References},
    telemetry::EngineMetrics,
};
use karat_rules::domain::ModelName;
use karat_runtime::ort::Library;
use prometheus::Registry;

use super::CommandError;

/// Nothing waits in a queue here.
const QUEUE_TOKENS: usize = 1 << 20;

/// Flags of `karat inspect`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectArguments {
    /// The folder of a Hugging Face checkpoint.
    folder: PathBuf,

    /// Write the manifest into the folder, to be changed there; what is there already stays.
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
    let InspectArguments { folder, write, onnxruntime } = arguments;
    let checkpoint = Checkpoint::read(folder)?;
    let manifest = checkpoint.manifest()?;
    let references = match folder.join(EXPECTED_FILE).exists() {
        true => Some(compare(folder, onnxruntime.as_deref())?),
        false => None,
    };
    let parameters = checkpoint.parameters();
    let stored: Vec<String> = checkpoint.types().into_iter().collect();
    let megabytes = (parameters * size_of::<f32>()) >> 20;
    println!("# {parameters} parameters, stored as {}: {megabytes} MB in 32 bits, as the", stored.join(" and "));
    println!("# processor computes. ONNX Runtime packs copies of its own: reckon with three times that.");
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

/// Loads the model in a folder, which holds it to what is expected of it.
fn compare(folder: &Path, onnxruntime: Option<&Path>) -> Result<References, CommandError> {
    let folder = folder.canonicalize()?;
    let name: ModelName = folder.file_name().unwrap_or_default().to_string_lossy().parse()?;
    let engine = Engine::new(0);
    let options = LoadOptions {
        repository: folder.parent().unwrap_or(&folder).to_owned(),
        only: Some(name.clone()),
        queue_tokens: QUEUE_TOKENS,
        calibration: Duration::ZERO,
        prefix_cache_bytes: 0,
    };
    engine.load(&Library::load(onnxruntime)?, &EngineMetrics::register(&Registry::new())?, &options)?;
    if let Some(ModelStatus::Failed(reason)) = engine.repository().models().get(&name) {
        return Err(reason.clone().into());
    }
    let references = engine.model(&name)?.references;
    engine.repository().drain();
    references.ok_or_else(|| format!("{EXPECTED_FILE} was taken away meanwhile").into())
}
