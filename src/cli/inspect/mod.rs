//! `karat inspect`: what a checkpoint would be served as, or everything that stands in the way.

mod told;

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
    repository::{EXPECTED_FILE, Listed, LoadOptions, ModelSource, ModelStatus, References, Watch},
    telemetry::EngineMetrics,
};
use karat_hub::{Hub, HubSettings, ModelId};
use karat_runtime::ort::Library;
use prometheus::Registry;

use super::{
    CommandError,
    style::{say, say_json},
};
use crate::telemetry::{self, LogFormat};
use told::{Found, Told};

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

    /// Print JSON, also of what can't be served.
    #[arg(long, conflicts_with = "write")]
    json: bool,
}

/// Shows the manifest that a checkpoint gets, and what serving it takes.
pub(super) fn inspect(arguments: &InspectArguments) -> Result<(), CommandError> {
    telemetry::start_logging("warn,karat_hub=info", LogFormat::Text)?;
    let hub = Hub::new(HubSettings::from_env());
    if arguments.json {
        let told = look(arguments, &hub).unwrap_or_else(|error| Told::unreadable(&error));
        say_json(&told)?;
        return finish(&told);
    }
    let folder = arguments.model.locate(&hub)?;
    if arguments.write && hub.snapshot_in(&folder).is_none() && folder.join(manifest::FILE_NAME).is_file() {
        return pin(&folder);
    }
    let told = look(arguments, &hub)?;
    if let Some(found) = &told.found {
        say(found.to_text().trim_end())?;
    }
    finish(&told)
}

fn finish(told: &Told) -> Result<(), CommandError> {
    match told.problems.as_slice() {
        [] => Ok(()),
        problems => Err(format!("it can't be served yet: {}", problems.join("; ")).into()),
    }
}

/// Looks at everything, and writes the manifest where that was asked for.
fn look(arguments: &InspectArguments, hub: &Hub) -> Result<Told, CommandError> {
    let InspectArguments { model, write, onnxruntime, .. } = arguments;
    let folder = model.locate(hub)?;
    let id = hub.snapshot_in(&folder).map(|snapshot| snapshot.id);
    let (origin, written) = manifest::checkpoint_of(&folder, hub)?;
    let checkpoint = Checkpoint::read(&origin)?;
    let manifest = match (&id, written) {
        (_, Some(written)) => written,
        (Some(id), None) => by_id(checkpoint.manifest()?, id),
        (None, None) if *write => format!("{}\n{}", checkpoint.manifest()?, digests(&folder)?),
        (None, None) => checkpoint.manifest()?.to_owned(),
    };
    let ids: Vec<ModelId> =
        origin.folders().filter_map(|folder| hub.snapshot_in(folder)).map(|snapshot| snapshot.id).collect();
    let compared = match folder.join(EXPECTED_FILE).exists() {
        // Where it lies by now: nobody has to be asked again.
        true => compare(&format!("{}={}", model.name(), folder.display()).parse()?, onnxruntime.as_deref()).map(Some),
        false => Ok(None),
    };
    let (references, differs) = match compared {
        Ok(references) => (references, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let unready = manifest::check_text(&folder, hub).err().map(|error| error.to_string());
    if *write && differs.is_none() {
        // The Hub's cache is no place to change anything in, and the manifest names a commit.
        let folder = if id.is_some() { PathBuf::from(model.name().as_str()) } else { folder.clone() };
        write_manifest(&folder, &manifest)?;
    }
    let found = Found::new(&checkpoint, &folder, &ids, references, manifest)?;
    Ok(Told::of(found, differs.into_iter().chain(unready).collect()))
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
