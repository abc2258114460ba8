//! Where TensorRT keeps what it builds.
//!
//! Building an engine takes minutes, and an engine fits one graph, one range of shapes, one precision, one kind of GPU
//! and one version of the libraries. So each such combination has a folder of its own, named by a digest of all of
//! these; the file `key.txt` in it says what they are, and that the engines are complete. Timings of kernels depend on
//! the GPU alone and are shared by all graphs of a folder.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use karat_onnx::ModelProto;
use sha2::{Digest, Sha256};

use super::{GraphFile, Library, ModelFile};
use crate::{
    Provider, ProviderKind, RuntimeError, TensorrtOptions,
    libraries::{Places, Survey, graphics},
};

/// The file that says what the engines beside it were built for.
const KEY_FILE: &str = "key.txt";
/// Where engines are kept unless the manifest names another folder.
const DEFAULT_FOLDER: &str = "tensorrt";

/// A file beside the graph that holds weights of it. Reading gigabytes to tell whether they changed would take longer
/// than most builds, so their sizes and times stand for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WeightFile {
    name: String,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl WeightFile {
    /// The files that the model keeps weights in, each once; `path` is the graph's own.
    pub(super) fn all(model: &ModelProto, path: &Path) -> Vec<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let file = |name: &str| {
            let metadata = fs::metadata(folder.join(name)).ok()?;
            Some(Self { name: name.to_owned(), bytes: metadata.len(), modified: metadata.modified().ok() })
        };
        model.external_files().into_iter().filter_map(file).collect()
    }

    /// How many bytes the graph's file and these take together.
    pub(super) fn total(model: &ModelProto, path: &Path) -> u64 {
        let graph = fs::metadata(path).map_or(0, |metadata| metadata.len());
        graph + Self::all(model, path).iter().map(|file| file.bytes).sum::<u64>()
    }
}

/// The place of one graph's engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Engines {
    folder: PathBuf,
    timings: PathBuf,
    key: String,
}

/// What engines depend on beside the options.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Platform {
    /// The products, in the driver's order.
    gpus: Vec<String>,
    /// The version of TensorRT.
    tensorrt: String,
    /// What ONNX Runtime says of its own build.
    onnxruntime: String,
}

impl Platform {
    /// This machine's.
    fn here(survey: &Survey, onnxruntime: &str) -> Self {
        let tensorrt = survey.of("libnvinfer.so.10").and_then(|finding| finding.found.as_ref());
        Self {
            gpus: graphics().gpus,
            tensorrt: tensorrt.map_or_else(|| "unknown".to_owned(), |found| found.version.clone()),
            onnxruntime: onnxruntime.to_owned(),
        }
    }
}

impl Engines {
    /// The place for a graph that was read from `path`; `None` unless `provider` is TensorRT.
    pub(super) fn of_graph(library: &Library, provider: &Provider, model: &ModelProto, path: &Path) -> Option<Self> {
        let Provider::Tensorrt(options) = provider else { return None };
        let survey = Survey::take(&Places::of_this_machine(Some(library.path())));
        let platform = Platform::here(&survey, library.build_info());
        Some(Self::of(path, &WeightFile::all(model, path), options, &platform))
    }

    /// The place for a graph, some of whose weights may lie in files of their own.
    fn of(graph: &Path, weights: &[WeightFile], options: &TensorrtOptions, platform: &Platform) -> Self {
        let beside = graph.parent().unwrap_or(Path::new("."));
        let root = beside.join(options.engine_cache.as_deref().unwrap_or(Path::new(DEFAULT_FOLDER)));
        let Platform { gpus, tensorrt, onnxruntime } = platform;
        let TensorrtOptions { fp16, bf16, int8, workspace_mb, profile, devices: _, engine_cache: _ } = options;
        let key = format!(
            "graph {}\nweights {weights:?}\nfp16 {fp16} bf16 {bf16} int8 {int8}\nworkspace {workspace_mb:?}\n\
             profile {profile:?}\ngpus {gpus:?}\ntensorrt {tensorrt}\nonnxruntime {onnxruntime}\n",
            file_digest(graph),
        );
        Self {
            folder: root.join(short(&Sha256::digest(&key))),
            timings: root.join(format!("timings-{}", short(&Sha256::digest(format!("{gpus:?} {tensorrt}"))))),
            key,
        }
    }

    /// Whether engines were built for exactly this before.
    pub(super) fn are_built(&self) -> bool {
        fs::read_to_string(self.folder.join(KEY_FILE)).is_ok_and(|key| key == self.key)
    }

    /// Makes the folders; `None`, with a warning, when that can't be done and nothing can be kept.
    pub(super) fn prepare(&self) -> Option<(&Path, &Path)> {
        for folder in [&self.folder, &self.timings] {
            if let Err(error) = fs::create_dir_all(folder) {
                tracing::warn!(folder = %folder.display(), %error, "engines are not kept: each start builds anew");
                return None;
            }
        }
        Some((&self.folder, &self.timings))
    }

    /// Notes that the engines are complete.
    pub(super) fn complete(&self) {
        if let Err(error) = fs::write(self.folder.join(KEY_FILE), &self.key) {
            tracing::warn!(folder = %self.folder.display(), %error, "engines are not kept: each start builds anew");
        }
    }
}

impl Library {
    /// Whether loading the graph will first build engines, which takes minutes.
    ///
    /// # Errors
    /// When the file is no graph.
    pub fn must_build(&self, file: &GraphFile<'_>) -> Result<bool, RuntimeError> {
        let Some(provider) = file.providers.iter().find(|provider| provider.kind() == ProviderKind::Tensorrt) else {
            return Ok(false);
        };
        let survey = Survey::take(&Places::of_this_machine(Some(self.path())));
        if survey.missing(ProviderKind::Tensorrt).next().is_some() {
            return Ok(false);
        }
        let read = ModelFile::read(file.path)?;
        Ok(Engines::of_graph(self, provider, read.model(), file.path).is_some_and(|engines| !engines.are_built()))
    }
}

/// A file that can't be read is told by whoever loads it.
fn file_digest(path: &Path) -> String {
    fs::read(path).map_or_else(|_| "unreadable".to_owned(), |bytes| short(&Sha256::digest(bytes)))
}

fn short(digest: &[u8]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{Shape, ShapeProfile};

    fn platform() -> Platform {
        Platform {
            gpus: vec!["NVIDIA H200".to_owned()],
            tensorrt: "10.13.3".to_owned(),
            onnxruntime: "1.31.1".to_owned(),
        }
    }

    fn profile(batch: usize) -> ShapeProfile {
        let shape = |batch, tokens| Shape {
            batch: NonZeroUsize::new(batch).unwrap(),
            tokens: NonZeroUsize::new(tokens).unwrap(),
        };
        ShapeProfile { min: shape(1, 1), best: shape(batch, 128), max: shape(batch, 512) }
    }

    #[test]
    fn every_difference_that_matters_has_a_folder_of_its_own() {
        let model = tempfile::tempdir().unwrap();
        let graph = model.path().join("model.onnx");
        fs::write(&graph, "one").unwrap();
        let options = TensorrtOptions { profile: Some(profile(8)), ..TensorrtOptions::default() };
        let base = Engines::of(&graph, &[], &options, &platform());
        assert!(base.folder.starts_with(model.path().join("tensorrt")), "{base:?}");
        assert_eq!(base, Engines::of(&graph, &[], &options, &platform()));

        let other_options = [
            TensorrtOptions { fp16: true, ..options.clone() },
            TensorrtOptions { profile: Some(profile(16)), ..options.clone() },
            TensorrtOptions { workspace_mb: NonZeroUsize::new(1), ..options.clone() },
        ];
        let mut others: Vec<Engines> =
            other_options.iter().map(|options| Engines::of(&graph, &[], options, &platform())).collect();
        others.push(Engines::of(&graph, &[], &options, &Platform { tensorrt: "10.14".to_owned(), ..platform() }));
        let gpu = Platform { gpus: vec!["NVIDIA L4".to_owned()], ..platform() };
        others.push(Engines::of(&graph, &[], &options, &gpu));
        assert_ne!(others[4].timings, base.timings);
        fs::write(&graph, "two").unwrap();
        others.push(Engines::of(&graph, &[], &options, &platform()));
        for other in &others {
            assert_ne!(other.folder, base.folder, "{}", other.key);
        }
        assert_eq!(others[0].timings, base.timings, "timings of kernels depend on the GPU alone");
    }

    #[test]
    fn engines_count_as_built_only_once_they_are_complete() {
        let model = tempfile::tempdir().unwrap();
        let graph = model.path().join("model.onnx");
        let engines = Engines::of(&graph, &[], &TensorrtOptions::default(), &platform());
        assert!(!engines.are_built());
        let (folder, _) = engines.prepare().unwrap();
        fs::write(folder.join("half.engine"), "").unwrap();
        assert!(!engines.are_built(), "a build that broke off leaves no key");
        engines.complete();
        assert!(engines.are_built());
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = TensorrtOptions { engine_cache: Some(file.path().to_owned()), ..TensorrtOptions::default() };
        assert_eq!(Engines::of(Path::new("/model.onnx"), &[], &options, &platform()).prepare(), None);
    }
}
