//! The libraries that GPU providers need beside ONNX Runtime: where they lie and which version they are.
//!
//! CUDA comes in three ways: installed on the system, inside Python's `nvidia-*` packages, or copied beside the
//! program. The system's loader knows only the first, so the others are found here and loaded by their full path
//! before ONNX Runtime asks for them by name. A [`Survey`] is what was found; `karat doctor` prints it.

mod graphics;
mod places;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::ProviderKind;

pub use graphics::{Graphics, graphics};
pub use places::Places;
pub(crate) use places::{Folder, Place, own_prefix, python_packages};

/// A library that a provider loads, at exactly one major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Library {
    /// The file's name up to its version, such as `libcudart.so`.
    stem: &'static str,
    /// The version that ONNX Runtime was built for.
    major: u32,
    /// What it is a part of.
    part_of: Component,
    /// The package of Python's index that carries it.
    package: Option<&'static str>,
    /// The providers that can't start without it; others load it when an operator asks for it.
    needed_by: &'static [ProviderKind],
}

/// What is installed as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Component {
    /// The NVIDIA driver.
    Driver,
    /// The CUDA toolkit's libraries.
    Cuda,
    /// cuDNN.
    Cudnn,
    /// TensorRT.
    Tensorrt,
}

const BOTH: &[ProviderKind] = &[ProviderKind::Cuda, ProviderKind::Tensorrt];
const CUDA: &[ProviderKind] = &[ProviderKind::Cuda];
const TENSORRT: &[ProviderKind] = &[ProviderKind::Tensorrt];
const ON_DEMAND: &[ProviderKind] = &[];

/// Every library, each behind those that it needs itself.
const LIBRARIES: [Library; 10] = [
    library("libcuda.so", 1, Component::Driver, None, BOTH),
    library("libcudart.so", 13, Component::Cuda, Some("nvidia-cuda-runtime"), BOTH),
    library("libcublasLt.so", 13, Component::Cuda, Some("nvidia-cublas"), BOTH),
    library("libcublas.so", 13, Component::Cuda, Some("nvidia-cublas"), BOTH),
    library("libcurand.so", 10, Component::Cuda, Some("nvidia-curand"), CUDA),
    library("libnvrtc.so", 13, Component::Cuda, Some("nvidia-cuda-nvrtc"), ON_DEMAND),
    library("libcufft.so", 12, Component::Cuda, Some("nvidia-cufft"), ON_DEMAND),
    library("libcudnn.so", 9, Component::Cudnn, Some("nvidia-cudnn-cu13"), TENSORRT),
    library("libnvinfer.so", 10, Component::Tensorrt, Some("tensorrt-cu13"), TENSORRT),
    library("libnvonnxparser.so", 10, Component::Tensorrt, Some("tensorrt-cu13"), TENSORRT),
];

const fn library(
    stem: &'static str,
    major: u32,
    part_of: Component,
    package: Option<&'static str>,
    needed_by: &'static [ProviderKind],
) -> Library {
    Library { stem, major, part_of, package, needed_by }
}

/// The parts of cuDNN, which loads them by name when it first needs them; each behind those that it needs.
const CUDNN_PARTS: [&str; 7] = [
    "libcudnn_graph.so",
    "libcudnn_ops.so",
    "libcudnn_heuristic.so",
    "libcudnn_adv.so",
    "libcudnn_cnn.so",
    "libcudnn_engines_precompiled.so",
    "libcudnn_engines_runtime_compiled.so",
];

impl Library {
    /// The file's name with the version, such as `libcudart.so.13`.
    #[must_use]
    fn file_name(&self) -> String {
        format!("{}.{}", self.stem, self.major)
    }

    /// Whether that provider loads it, at its start or later.
    fn is_used_by(&self, provider: ProviderKind) -> bool {
        match provider {
            ProviderKind::Cpu => false,
            ProviderKind::Cuda => self.part_of != Component::Tensorrt,
            ProviderKind::Tensorrt => true,
        }
    }

    /// What brings it.
    #[must_use]
    pub(crate) fn install(&self) -> String {
        let product = match self.part_of {
            Component::Driver => return "the NVIDIA driver".to_owned(),
            Component::Cuda => "CUDA 13",
            Component::Cudnn => "cuDNN 9 for CUDA 13",
            Component::Tensorrt => "TensorRT 10 for CUDA 13",
        };
        match self.package {
            Some(package) => format!("{product} (also as the PyPI package {package})"),
            None => product.to_owned(),
        }
    }
}

/// A file of a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its version as far as its name, or the package it came with, tells.
    pub version: String,
    /// The way it came here.
    place: Place,
    #[serde(skip)]
    major: u32,
}

/// What there is of one library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file's name as ONNX Runtime asks for it.
    pub name: String,
    /// The library.
    #[serde(skip)]
    library: Library,
    /// The providers that can't start without it.
    pub needed_by: &'static [ProviderKind],
    /// What brings it.
    pub(crate) install: String,
    /// The first file of the right version, by the order of the places.
    pub found: Option<Found>,
    /// Files of other versions, which can't be used.
    pub unfit: Vec<Found>,
}

/// What was found of every library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// One finding for each library that is known, each behind those that it needs itself.
    pub libraries: Vec<Finding>,
    #[serde(skip)]
    parts: Vec<PathBuf>,
}

impl Survey {
    /// Looks for every library in every place.
    #[must_use]
    pub fn take(places: &Places) -> Self {
        let libraries: Vec<Finding> = LIBRARIES.iter().map(|&library| find(library, places)).collect();
        let cudnn = libraries.iter().find(|finding| finding.library.part_of == Component::Cudnn);
        let folder = cudnn.and_then(|finding| finding.found.as_ref()?.path.parent().map(Path::to_owned));
        let parts = folder.map_or_else(Vec::new, |folder| {
            CUDNN_PARTS.iter().map(|part| folder.join(format!("{part}.9"))).filter(|path| path.is_file()).collect()
        });
        Self { libraries, parts }
    }

    /// The files to load before `provider` is registered, each behind those that it needs.
    ///
    /// The driver is left out: it belongs to the kernel, and the system's loader knows it.
    #[must_use]
    pub(crate) fn to_preload(&self, provider: ProviderKind) -> Vec<&Path> {
        let needed =
            |finding: &&Finding| finding.library.is_used_by(provider) && finding.library.part_of != Component::Driver;
        let mut files = Vec::new();
        for finding in self.libraries.iter().filter(needed) {
            files.extend(finding.found.as_ref().map(|found| found.path.as_path()));
            if finding.library.part_of == Component::Cudnn {
                files.extend(self.parts.iter().map(PathBuf::as_path));
            }
        }
        files
    }

    /// The finding for a file name as the loader tells it, such as `libnvinfer.so.10`.
    #[must_use]
    pub(crate) fn of(&self, file_name: &str) -> Option<&Finding> {
        self.libraries.iter().find(|finding| finding.name == file_name)
    }

    /// What `provider` can't start without and what isn't there.
    pub fn missing(&self, provider: ProviderKind) -> impl Iterator<Item = &Finding> {
        self.libraries
            .iter()
            .filter(move |finding| finding.library.needed_by.contains(&provider) && finding.found.is_none())
    }
}

impl Finding {
    /// Why it can't be used, in a clause; `None` when it can.
    #[must_use]
    pub(crate) fn problem(&self) -> Option<String> {
        if self.found.is_some() {
            return None;
        }
        Some(match self.unfit.first() {
            None => format!("the library {} is missing", self.name),
            Some(other) => format!(
                "the library {} is missing; {} is version {}, and version {} is needed",
                self.name,
                other.path.display(),
                other.version,
                self.library.major,
            ),
        })
    }
}

fn find(library: Library, places: &Places) -> Finding {
    let mut fitting = Vec::new();
    let mut unfit: Vec<Found> = Vec::new();
    for folder in places.folders() {
        for found in files_of(library, folder) {
            if found.major == library.major { &mut fitting } else { &mut unfit }.push(found);
        }
    }
    // A version is told once for each folder, not for every link to it.
    let mut told = BTreeSet::new();
    unfit.retain(|found| told.insert((found.path.parent().map(Path::to_owned), found.major)));
    Finding {
        name: library.file_name(),
        library,
        needed_by: library.needed_by,
        install: library.install(),
        found: fitting.into_iter().next(),
        unfit,
    }
}

/// The library's files in a folder, the shortest name first: that is the one the loader would take.
fn files_of(library: Library, folder: &Folder) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(&folder.path) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| version_in(name, library.stem).is_some())
        .collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    let found = |name: &String| {
        let path = folder.path.join(name);
        let real = path.canonicalize().ok().filter(|real| real.is_file())?;
        let named = version_in(name, library.stem)?;
        let major = named.split('.').next()?.parse().ok()?;
        let behind = real.file_name().and_then(|name| version_in(name.to_str()?, library.stem)).unwrap_or(named);
        let version = match (behind.contains('.'), library.package) {
            (false, Some(package)) => places::package_version(&path, package).unwrap_or_else(|| behind.to_owned()),
            _ => behind.to_owned(),
        };
        Some(Found { path, version, place: folder.place, major })
    };
    names.iter().filter_map(found).collect()
}

/// The version that a file's name holds: `13.0.48` in `libcudart.so.13.0.48`.
fn version_in<'a>(name: &'a str, stem: &str) -> Option<&'a str> {
    let version = name.strip_prefix(stem)?.strip_prefix('.')?;
    version.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())).then_some(version)
}

#[cfg(test)]
mod tests;
