//! Finding and loading the shared library.

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ::ort::environment::Environment;

use super::{BuiltGraph, Graph, GraphFile, ModelFile, Sessions, arena, pool::Pools};
use crate::{
    Provider, RuntimeError, Turns,
    give_back::{give_back_memory, keep_little},
    libraries::{own_prefix, python_packages},
};

/// Names the library's file, for users whose ONNX Runtime is installed elsewhere.
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Keeps ONNX Runtime from reporting its use over the network; it reads this while it loads.
const TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
/// Where `make setup` puts the library, below the project's folder.
const SETUP_FOLDER: &str = ".karat/onnxruntime/lib";

#[cfg(target_os = "macos")]
const FILE_NAME: &str = "libonnxruntime.dylib";
#[cfg(target_os = "windows")]
const FILE_NAME: &str = "onnxruntime.dll";
#[cfg(not(any(target_os = "macos", target_os = "windows")))]
const FILE_NAME: &str = "libonnxruntime.so";

/// ONNX Runtime allows one environment a process, so the one that was loaded is kept for later callers.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// ONNX Runtime, loaded. Clones share one environment.
#[derive(Debug, Clone)]
pub struct Library {
    pub(super) environment: Environment,
    /// The turns that passes take on the processor.
    pub(super) turns: Turns,
    /// The weights that graphs of one file share.
    pub(super) pools: Pools,
    /// Held by whoever keeps copies of a graph's weights aside.
    pub(super) copies: Arc<Mutex<()>>,
    path: PathBuf,
}

impl Library {
    /// Finds and loads the library: `explicit`, else the file named in `ORT_DYLIB_PATH`, else the file beside the
    /// executable, else the package `onnxruntime` of the Python environment that the executable was installed
    /// into, else `.karat/onnxruntime/lib/` in the current folder or the nearest folder above it.
    ///
    /// Turns ONNX Runtime's telemetry off first, which sets an environment variable: call this at the start of
    /// `main`, before any other thread runs. Later calls return the library that is loaded.
    ///
    /// # Errors
    /// When no file is found, it can't be used, or another one was loaded before.
    pub fn load(explicit: Option<&Path>) -> Result<Self, RuntimeError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.as_ref() {
            return match explicit {
                Some(wanted) if !same_file(wanted, &library.path) => {
                    Err(RuntimeError::LibraryLoaded { loaded: library.path.clone(), wanted: wanted.to_owned() })
                }
                _ => Ok(library.clone()),
            };
        }
        let path = find(explicit)?;
        disable_telemetry();
        keep_little();
        let unusable = |cause| RuntimeError::LibraryUnusable { path: path.clone(), cause };
        let environment = ::ort::init_from(&path)
            .map_err(|error| unusable(error.to_string().into()))?
            .with_name("karat")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.into()))?;
        arena::share(&environment).map_err(|error| unusable(error.into()))?;
        let library =
            Self { environment, turns: Turns::default(), pools: Pools::default(), copies: Arc::default(), path };
        *loaded = Some(library.clone());
        Ok(library)
    }

    /// The file that was loaded.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives memory back that passes on the processor computed with, once none ran since this was called last: the next pass
    /// would take it anew, page by page, and a client that waits for each reply rests between any two.
    pub fn give_back_at_rest(&self) {
        if !self.turns.have_come_to_rest() {
            return;
        }
        if let Err(error) = arena::shrink(&self.environment) {
            tracing::debug!(%error, "the memory that passes computed with can't be given back");
        }
        give_back_memory();
    }

    /// What ONNX Runtime says of its own build: version, commit and flags.
    #[must_use]
    pub fn build_info(&self) -> &'static str {
        ::ort::info()
    }

    /// Loads a graph that was built in memory on the first of `providers` that starts.
    ///
    /// # Errors
    /// When the graph is none, or the last provider can't start.
    pub fn open_built(
        &self,
        built: BuiltGraph,
        providers: &[Provider],
        sessions: Sessions,
    ) -> Result<Graph, RuntimeError> {
        Graph::open_built(self, built, providers, sessions)
    }

    /// Loads a graph on the first of its providers that starts.
    ///
    /// # Errors
    /// When the file is no graph, or the last provider of the list can't start.
    pub fn open(&self, file: &GraphFile<'_>, sessions: Sessions) -> Result<Graph, RuntimeError> {
        self.open_read(&ModelFile::read(file.path)?, file.providers, sessions)
    }

    /// The same of a file that was read already.
    ///
    /// # Errors
    /// When the last provider of the list can't start.
    pub fn open_read(
        &self,
        file: &ModelFile,
        providers: &[Provider],
        sessions: Sessions,
    ) -> Result<Graph, RuntimeError> {
        Graph::open(self, file, providers, sessions)
    }
}

#[expect(unsafe_code, reason = "ONNX Runtime has no other switch that works before it loads")]
fn disable_telemetry() {
    // SAFETY: changing the environment is only unsound while another thread reads it outside of std's lock;
    // `Library::load` tells its caller to come here before any other thread runs.
    unsafe { env::set_var(TELEMETRY_VARIABLE, "1") };
}

fn find(explicit: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    let named = explicit.map(Path::to_owned).or_else(|| env::var_os(PATH_VARIABLE).map(PathBuf::from));
    let candidates = match named {
        // A file that was named must be the one that is used: another would compute with another version.
        Some(path) => vec![path],
        None => default_places(),
    };
    match candidates.iter().find(|path| path.is_file()) {
        // The loader takes a bare name for one to look up itself.
        Some(path) => Ok(path.canonicalize().unwrap_or_else(|_| path.clone())),
        None => Err(RuntimeError::LibraryMissing { searched: candidates }),
    }
}

fn default_places() -> Vec<PathBuf> {
    let executable = env::current_exe().ok();
    let beside_executable = executable.as_ref().and_then(|path| Some(path.parent()?.join(FILE_NAME)));
    // No other environment's: its version would be any.
    let own_environment = executable.as_deref().and_then(own_prefix).and_then(|prefix| of_python(&prefix));
    let current = env::current_dir().ok();
    let above =
        current.iter().flat_map(|folder| folder.ancestors()).map(|folder| folder.join(SETUP_FOLDER).join(FILE_NAME));
    beside_executable.into_iter().chain(own_environment).chain(above).collect()
}

/// The library in the package `onnxruntime` of an environment; its name ends in its version there.
fn of_python(prefix: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = python_packages(prefix)
        .iter()
        .filter_map(|packages| std::fs::read_dir(packages.join("onnxruntime/capi")).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_library))
        .collect();
    found.sort();
    found.pop()
}

/// Whether a file's name is the library's, with or without a version; its providers' names go on otherwise.
fn is_library(name: &str) -> bool {
    let (stem, extension) = FILE_NAME.split_once('.').unwrap_or((FILE_NAME, ""));
    let Some(rest) = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')) else { return false };
    let version = rest.strip_prefix(extension).or_else(|| rest.strip_suffix(extension)).unwrap_or("?");
    version.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_alone;

    /// Set for the process that [`child`] runs in, to the library that it should load.
    const CHILD: &str = "KARAT_TEST_LIBRARY";

    /// Runs alone in a process of its own, started by the tests below.
    #[test]
    #[ignore = "only meant to be run by other tests"]
    fn child() {
        let Some(path) = env::var_os(CHILD).map(PathBuf::from) else { return };
        assert_eq!(env::var_os(TELEMETRY_VARIABLE), None);
        let result = Library::load(Some(&path));
        // The variable is set although the file can't be loaded: so it was set before the attempt.
        assert_eq!(env::var(TELEMETRY_VARIABLE).as_deref(), Ok("1"));
        let error = result.unwrap_err();
        assert!(matches!(error, RuntimeError::LibraryUnusable { .. }), "{error}");
        // A damaged file doesn't keep the right one from being loaded afterwards.
        let library = Library::load(None).unwrap();
        assert!(library.build_info().contains("ORT Build Info"), "{}", library.build_info());
        assert!(matches!(Library::load(Some(&path)), Err(RuntimeError::LibraryLoaded { .. })));
    }

    #[test]
    fn telemetry_is_off_before_the_library_loads_and_a_damaged_library_is_no_panic() {
        let damaged = tempfile::NamedTempFile::new().unwrap();
        run_alone("ort::library::tests::child", CHILD, damaged.path(), &[TELEMETRY_VARIABLE]);
    }

    #[test]
    fn a_missing_library_is_reported_with_what_to_do() {
        let error = find(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/libonnxruntime.so") && error.contains("make setup"), "{error}");
    }

    #[test]
    fn the_library_of_a_python_environment_is_found_whatever_its_version() {
        let prefix = tempfile::tempdir().unwrap();
        let capi = prefix.path().join("lib/python3.12/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        assert_eq!(of_python(prefix.path()), None);
        for name in ["libonnxruntime_providers_shared.so", "libonnxruntime.so.txt", "libonnxruntime.so.1.31.1"] {
            std::fs::write(capi.join(name), "").unwrap();
        }
        assert_eq!(of_python(prefix.path()), Some(capi.join("libonnxruntime.so.1.31.1")));
        assert_eq!(own_prefix(&prefix.path().join("bin/karat")), Some(prefix.path().to_owned()));
        assert_eq!(own_prefix(Path::new("/work/target/release/karat")), None);
    }

    #[test]
    fn the_setup_folder_is_found_from_below() {
        let places = default_places();
        let below = |folder: &Path| folder.join(SETUP_FOLDER).join(FILE_NAME);
        let current = env::current_dir().unwrap();
        assert!(places.contains(&below(&current)) && places.contains(&below(current.parent().unwrap())), "{places:?}");
    }
}
