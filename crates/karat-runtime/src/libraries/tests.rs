//! Discovery in folders that are made up like those of real installations.

use std::os::unix::fs::symlink;

use super::*;

/// A machine's root that is filled file by file.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn file(self, path: &str) -> Self {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.path(path)).unwrap();
        self
    }

    fn survey(&self) -> Survey {
        let at = |place: Place| move |path: PathBuf| Folder { path, place };
        let python = places::python(&[self.path("venv"), self.path("nowhere")]);
        let system = places::system(self.0.path());
        let beside = [at(Place::Beside)(self.path("opt/karat"))];
        let folders = beside.into_iter();
        let folders = folders.chain(python.into_iter().map(at(Place::Python)));
        Survey::take(&Places::new(folders.chain(system.into_iter().map(at(Place::System))).collect()))
    }
}

const PACKAGES: &str = "venv/lib/python3.12/site-packages";

fn found<'a>(survey: &'a Survey, name: &str) -> &'a Found {
    survey.of(name).unwrap().found.as_ref().unwrap_or_else(|| panic!("{name} was not found"))
}

#[test]
fn a_toolkit_on_the_system_is_found_with_its_version() {
    let machine = Machine::new()
        .file("usr/local/cuda-13.0/lib64/libcudart.so.13.0.48")
        .link("usr/local/cuda-13.0/lib64/libcudart.so.13", "libcudart.so.13.0.48")
        .link("usr/local/cuda-13.0/lib64/libcudart.so", "libcudart.so.13")
        .file("usr/lib/x86_64-linux-gnu/libcudnn.so.9.14.0")
        .link("usr/lib/x86_64-linux-gnu/libcudnn.so.9", "libcudnn.so.9.14.0");
    let survey = machine.survey();
    let runtime = found(&survey, "libcudart.so.13");
    assert_eq!((runtime.version.as_str(), runtime.place), ("13.0.48", Place::System));
    assert!(runtime.path.ends_with("libcudart.so.13"), "the name that the loader asks for: {runtime:?}");
    assert_eq!(found(&survey, "libcudnn.so.9").version, "9.14.0");
}

#[test]
fn libraries_inside_python_packages_are_found_with_the_packages_version() {
    let machine = Machine::new()
        .file(&format!("{PACKAGES}/nvidia/cu13/lib/libcudart.so.13"))
        .file(&format!("{PACKAGES}/nvidia_cuda_runtime-13.0.96.dist-info/METADATA"))
        .file(&format!("{PACKAGES}/nvidia/cudnn/lib/libcudnn.so.9"))
        .file(&format!("{PACKAGES}/nvidia/cudnn/lib/libcudnn_ops.so.9"))
        .file(&format!("{PACKAGES}/nvidia/cudnn/lib/libcudnn_graph.so.9"))
        .file(&format!("{PACKAGES}/nvidia_cudnn_cu13-9.14.0.64.dist-info/METADATA"))
        .file(&format!("{PACKAGES}/tensorrt_libs/libnvinfer.so.10"))
        .file(&format!("{PACKAGES}/tensorrt_cu13_libs-10.13.3.9.dist-info/METADATA"));
    let survey = machine.survey();
    for (name, version) in
        [("libcudart.so.13", "13.0.96"), ("libcudnn.so.9", "9.14.0.64"), ("libnvinfer.so.10", "10.13.3.9")]
    {
        let library = found(&survey, name);
        assert_eq!((library.version.as_str(), library.place), (version, Place::Python), "{name}");
    }
    let names = |provider| -> Vec<String> {
        let files = survey.to_preload(provider);
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let cuda = ["libcudart.so.13", "libcudnn.so.9", "libcudnn_graph.so.9", "libcudnn_ops.so.9"];
    assert_eq!(names(ProviderKind::Cuda), cuda, "each behind what it needs, the parts of cuDNN with it");
    assert_eq!(names(ProviderKind::Tensorrt).last().unwrap(), "libnvinfer.so.10");
    assert!(names(ProviderKind::Cpu).is_empty());
}

#[test]
fn what_lies_beside_the_program_goes_first() {
    let machine = Machine::new()
        .file("usr/local/cuda/lib64/libcublas.so.13")
        .file(&format!("{PACKAGES}/nvidia/cu13/lib/libcublas.so.13"))
        .file("opt/karat/libcublas.so.13");
    assert_eq!(found(&machine.survey(), "libcublas.so.13").place, Place::Beside);
}

#[test]
fn another_major_version_is_told_and_not_used() {
    let machine = Machine::new()
        .file("usr/lib/x86_64-linux-gnu/libnvinfer.so.11.0.1")
        .link("usr/lib/x86_64-linux-gnu/libnvinfer.so.11", "libnvinfer.so.11.0.1")
        .file("usr/local/cuda/lib64/libcudart.so.12");
    let survey = machine.survey();
    let tensorrt = survey.of("libnvinfer.so.10").unwrap();
    assert_eq!(tensorrt.found, None);
    assert_eq!(tensorrt.unfit.len(), 1, "once for both names: {:?}", tensorrt.unfit);
    let problem = tensorrt.problem().unwrap();
    assert!(problem.contains("libnvinfer.so.11 is version 11.0.1, and version 10 is needed"), "{problem}");
    let problem = survey.of("libcudart.so.13").unwrap().problem().unwrap();
    assert!(problem.contains("version 12, and version 13"), "{problem}");
    assert!(survey.to_preload(ProviderKind::Tensorrt).is_empty());
}

#[test]
fn what_is_missing_is_named_with_what_brings_it() {
    let machine = Machine::new().file("opt/karat/libcudart.so.13").link("opt/karat/libcublas.so.13", "gone");
    let survey = machine.survey();
    let missing: Vec<&str> = survey.missing(ProviderKind::Cuda).map(|finding| finding.name.as_str()).collect();
    assert!(missing.contains(&"libcublas.so.13"), "a dangling link is no library");
    assert!(!missing.contains(&"libcudart.so.13") && !missing.contains(&"libnvinfer.so.10"), "{missing:?}");
    let cublas = survey.of("libcublas.so.13").unwrap();
    assert_eq!(cublas.problem().unwrap(), "the library libcublas.so.13 is missing");
    assert!(cublas.library.install().contains("nvidia-cublas"));
}

#[test]
fn names_that_only_look_like_a_library_are_left_alone() {
    for name in ["libcudart.so", "libcudart.so.13.bak", "libcudart.so.", "libcudartx.so.13", "libcublasLt.so.13"] {
        assert_eq!(version_in(name, "libcudart.so"), None, "{name}");
    }
    assert_eq!(version_in("libcublasLt.so.13", "libcublas.so"), None);
    assert_eq!(version_in("libcudart.so.13.0", "libcudart.so"), Some("13.0"));
}
