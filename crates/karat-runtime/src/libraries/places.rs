//! Where libraries may lie, in the order in which they are taken.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// The way a library came to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// A folder of `LD_LIBRARY_PATH`, which the loader takes before any other.
    Environment,
    /// Beside the program or beside ONNX Runtime's library.
    Beside,
    /// In a package of a Python environment.
    Python,
    /// Where the system installs libraries.
    System,
}

/// A folder to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    /// The folder.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) place: Place,
}

/// Folders to look into, each once, the preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    folders: Vec<Folder>,
}

impl Places {
    /// These folders, in this order.
    #[must_use]
    pub(crate) fn new(folders: Vec<Folder>) -> Self {
        let mut known: Vec<Folder> = Vec::new();
        for folder in folders {
            if folder.path.is_dir() && !known.iter().any(|known| known.path == folder.path) {
                known.push(folder);
            }
        }
        Self { folders: known }
    }

    /// Where this machine may have them; `onnxruntime` is the file of its library, if there is one.
    #[must_use]
    pub fn of_this_machine(onnxruntime: Option<&Path>) -> Self {
        let paths = |variable: &str| -> Vec<PathBuf> {
            env::var_os(variable).map(|value| env::split_paths(&value).collect()).unwrap_or_default()
        };
        let folder_of = |file: &Path| file.parent().map(Path::to_owned);
        let program = env::current_exe().ok();
        let beside = program.as_deref().and_then(folder_of).into_iter().chain(onnxruntime.and_then(folder_of));
        let at = |place: Place| move |path: PathBuf| Folder { path, place };
        let folders = paths("LD_LIBRARY_PATH")
            .into_iter()
            .filter(|path| path.is_absolute())
            .map(at(Place::Environment))
            .chain(beside.map(at(Place::Beside)))
            .chain(python(&python_prefixes(program.as_deref(), &paths("PATH"))).into_iter().map(at(Place::Python)))
            .chain(system(Path::new("/")).into_iter().map(at(Place::System)));
        Self::new(folders.collect())
    }

    /// The folders, the preferred first.
    #[must_use]
    pub(crate) fn folders(&self) -> &[Folder] {
        &self.folders
    }
}

/// The root of the environment that a program was installed into: the folder above its `bin`.
pub(crate) fn own_prefix(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    matches!(name(folder), "bin" | "Scripts").then(|| folder.parent().map(Path::to_owned)).flatten()
}

/// The roots of the Python environments that a user would mean: the program's own, the active one, the project's, that of
/// the first `python3` on the path, the system's, the user's.
fn python_prefixes(program: Option<&Path>, path: &[PathBuf]) -> Vec<PathBuf> {
    let own = program.and_then(own_prefix);
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let project = env::current_dir().ok().map(|folder| folder.join(".venv"));
    let first = path.iter().map(|folder| folder.join("python3")).find(|file| file.is_file());
    // An environment's program is a link to the one that it was made from: the link's own place is what counts.
    let first = first.iter().flat_map(|file| [Some(file.clone()), file.canonicalize().ok()]).flatten();
    let first = first.filter_map(|file| file.parent()?.parent().map(Path::to_owned));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".local"));
    let system = ["/usr/local", "/usr"].map(PathBuf::from);
    own.into_iter().chain(active).chain(project).chain(first.collect::<Vec<_>>()).chain(home).chain(system).collect()
}

/// The folders of an environment's packages.
pub(crate) fn python_packages(prefix: &Path) -> Vec<PathBuf> {
    let versions = subfolders(&prefix.join("lib")).into_iter().filter(|folder| name(folder).starts_with("python3"));
    versions.flat_map(|folder| ["site-packages", "dist-packages"].map(|name| folder.join(name))).collect()
}

/// The folders of libraries in the packages of those environments.
pub(super) fn python(prefixes: &[PathBuf]) -> Vec<PathBuf> {
    let packages = prefixes.iter().flat_map(|prefix| python_packages(prefix));
    packages
        .flat_map(|packages| {
            let nvidia = subfolders(&packages.join("nvidia")).into_iter().map(|package| package.join("lib"));
            nvidia.chain([packages.join("tensorrt_libs")]).collect::<Vec<_>>()
        })
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Where distributions and NVIDIA's own installers put libraries, below `root`.
pub(super) fn system(root: &Path) -> Vec<PathBuf> {
    let mut cuda: Vec<PathBuf> =
        subfolders(&root.join("usr/local")).into_iter().filter(|folder| name(folder).starts_with("cuda")).collect();
    // `cuda` is the link to the version that was chosen.
    cuda.sort_by_key(|folder| (name(folder) != "cuda", std::cmp::Reverse(name(folder).to_owned())));
    let cuda = cuda.into_iter().flat_map(|folder| ["lib64", "targets/x86_64-linux/lib"].map(|name| folder.join(name)));
    let usual = [
        "usr/local/nvidia/lib64",
        "usr/local/nvidia/lib",
        "usr/local/lib",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/aarch64-linux-gnu",
        "usr/lib64",
        "usr/lib",
        "lib/x86_64-linux-gnu",
        "lib64",
        "usr/lib/wsl/lib",
    ];
    cuda.chain(usual.map(|folder| root.join(folder))).collect()
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn name(folder: &Path) -> &str {
    folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The version of the Python package that a file belongs to, as the folder beside it says.
///
/// `nvidia-cudnn-cu13` leaves `nvidia_cudnn_cu13-9.14.0.64.dist-info` beside `nvidia/cudnn/lib/libcudnn.so.9`.
pub(super) fn package_version(file: &Path, package: &str) -> Option<String> {
    let packages = file.ancestors().find(|folder| matches!(name(folder), "site-packages" | "dist-packages"))?;
    let package = package.replace('-', "_");
    subfolders(packages).iter().find_map(|folder| {
        let (distribution, version) = name(folder).strip_suffix(".dist-info")?.rsplit_once('-')?;
        let rest = distribution.strip_prefix(package.as_str())?;
        (rest.is_empty() || rest.starts_with('_')).then(|| version.to_owned())
    })
}
