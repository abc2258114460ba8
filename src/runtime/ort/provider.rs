//! From a manifest's [`Provider`] to ONNX Runtime's, and from its complaints to advice.

use std::path::Path;

use ::ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch};

use crate::runtime::{
    Arena, CudaOptions, Provider, ProviderKind, RuntimeError, Shape, TensorrtOptions,
    libraries::{Finding, Places, Survey},
};

/// How ONNX Runtime registers `provider`; `None` for the processor, which it always has.
///
/// `folder` is where relative cache folders start, `inputs` the names of the graph's inputs.
pub(super) fn dispatch(provider: &Provider, folder: &Path, inputs: &[String]) -> Option<ExecutionProviderDispatch> {
    let dispatch = match provider {
        Provider::Cpu => return None,
        Provider::Cuda(options) => cuda(options).build(),
        Provider::Tensorrt(options) => tensorrt(options, folder, inputs).build(),
    };
    // Without this a provider that can't start gives way to the processor without a word.
    Some(dispatch.error_on_failure())
}

fn cuda(options: &CudaOptions) -> ep::CUDA {
    let mut provider = ep::CUDA::default()
        .with_device_id(device(options.device))
        .with_arena_extend_strategy(match options.arena {
            Arena::SameAsRequested => ArenaExtendStrategy::SameAsRequested,
            Arena::NextPowerOfTwo => ArenaExtendStrategy::NextPowerOfTwo,
        })
        .with_tf32(options.tf32)
        .with_cuda_graph(options.cuda_graph);
    if let Some(limit) = options.memory_limit_mb {
        provider = provider.with_memory_limit(bytes(limit.get()));
    }
    provider
}

fn tensorrt(options: &TensorrtOptions, folder: &Path, inputs: &[String]) -> ep::TensorRT {
    let mut provider = ep::TensorRT::default()
        .with_device_id(device(options.device))
        .with_fp16(options.fp16)
        .with_bf16(options.bf16)
        .with_int8(options.int8);
    if let Some(cache) = &options.engine_cache {
        provider = provider.with_engine_cache(true).with_engine_cache_path(folder.join(cache).display());
    }
    if let Some(cache) = &options.timing_cache {
        provider = provider.with_timing_cache(true).with_timing_cache_path(folder.join(cache).display());
    }
    if let Some(workspace) = options.workspace_mb {
        provider = provider.with_max_workspace_size(bytes(workspace.get()));
    }
    if let Some(profile) = &options.profile {
        provider = provider
            .with_profile_min_shapes(shapes(profile.min, inputs))
            .with_profile_opt_shapes(shapes(profile.best, inputs))
            .with_profile_max_shapes(shapes(profile.max, inputs));
    }
    provider
}

/// A profile as TensorRT's provider reads it: `input_ids:8x128,attention_mask:8x128`.
fn shapes(shape: Shape, inputs: &[String]) -> String {
    inputs.iter().map(|name| format!("{name}:{}x{}", shape.batch, shape.tokens)).collect::<Vec<_>>().join(",")
}

fn device(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn bytes(mebibytes: usize) -> usize {
    mebibytes.saturating_mul(1 << 20)
}

/// Says what keeps `provider` from starting and what to do, from ONNX Runtime's message and from what lies on this
/// machine; `onnxruntime` is the file of its library.
pub(super) fn explain(provider: ProviderKind, error: ::ort::Error, onnxruntime: &Path) -> RuntimeError {
    let survey = || Survey::take(&Places::of_this_machine(Some(onnxruntime)));
    let (reason, advice) = diagnose(provider, error.message(), survey);
    RuntimeError::Provider { provider, reason, advice, cause: error.into() }
}

fn diagnose(provider: ProviderKind, message: &str, survey: impl FnOnce() -> Survey) -> (String, String) {
    match missing_library(message) {
        Some(library) => {
            let survey = survey();
            let problem = survey.of(library).and_then(Finding::problem);
            (
                problem.unwrap_or_else(|| format!("the library {library} can't be loaded")),
                install(provider, library, &survey),
            )
        }
        None if message.contains("not enabled in this build") || message.contains("was not compiled") => (
            format!(
                "the library libonnxruntime_providers_{provider}.so is missing: this ONNX Runtime was built without it"
            ),
            "install the PyPI package onnxruntime-gpu (`make setup-cuda`) and name its libonnxruntime.so with \
             --onnxruntime, or write \"cpu\" in the manifest's providers"
                .to_owned(),
        ),
        None => (
            first_line(message).to_owned(),
            format!("check the GPU and the provider's options, or name another provider after \"{provider}\""),
        ),
    }
}

fn install(provider: ProviderKind, library: &str, survey: &Survey) -> String {
    let package = match survey.of(library) {
        Some(finding) => finding.install.clone(),
        None if library.contains("onnxruntime_providers") => {
            "the PyPI package onnxruntime-gpu, whose libraries belong beside libonnxruntime.so".to_owned()
        }
        None => format!("what brings {library}"),
    };
    format!(
        "install {package}, on the loader's path, in Python's packages or beside karat (`karat doctor` shows what is \
         found), or name another provider after \"{provider}\""
    )
}

/// The library that the loader missed, as in `libcudart.so.13: cannot open shared object file`.
fn missing_library(message: &str) -> Option<&str> {
    let before =
        message.split(": cannot open shared object file").next().filter(|before| before.len() < message.len())?;
    before
        .rsplit([' ', '\'', '"', ':'])
        .next()
        .filter(|name| !name.is_empty())
        .map(|path| path.rsplit('/').next().unwrap_or(path))
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message).trim()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::runtime::{
        ShapeProfile,
        libraries::{Folder, Place},
    };

    fn shape(batch: usize, tokens: usize) -> Shape {
        let positive = |number| NonZeroUsize::new(number).unwrap();
        Shape { batch: positive(batch), tokens: positive(tokens) }
    }

    fn nothing() -> Survey {
        Survey::take(&Places::new(Vec::new()))
    }

    #[test]
    fn the_loaders_complaint_is_turned_into_advice() {
        for (message, library, package) in [
            (
                "/onnxruntime_src/provider_bridge_ort.cc:2222 Failed to load library libonnxruntime_providers_cuda.so \
                 with error: libcudart.so.13: cannot open shared object file: No such file or directory",
                "libcudart.so.13",
                "CUDA 13",
            ),
            (
                "Failed to load library /opt/lib/libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: \
                 cannot open shared object file: No such file or directory",
                "libnvinfer.so.10",
                "TensorRT 10",
            ),
            (
                "Failed to load library libonnxruntime_providers_cuda.so with error: libcuda.so.1: cannot open shared \
                 object file: No such file or directory",
                "libcuda.so.1",
                "NVIDIA driver",
            ),
            (
                "with error: /opt/lib/libonnxruntime_providers_shared.so: cannot open shared object file: No such file",
                "libonnxruntime_providers_shared.so",
                "onnxruntime-gpu",
            ),
        ] {
            let (reason, advice) = diagnose(ProviderKind::Cuda, message, nothing);
            assert!(reason.contains(library) && advice.contains(package), "{reason}; {advice}");
        }
        assert_eq!(missing_library("CUDA failure 100: no CUDA-capable device is detected"), None);
    }

    #[test]
    fn a_tensorrt_of_another_major_version_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libnvinfer.so.11"), "").unwrap();
        let places = Places::new(vec![Folder { path: folder.path().to_owned(), place: Place::System }]);
        let message = "Failed to load library libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: \
                       cannot open shared object file: No such file or directory";
        let (reason, advice) = diagnose(ProviderKind::Tensorrt, message, || Survey::take(&places));
        assert!(reason.contains("libnvinfer.so.11 is version 11, and version 10 is needed"), "{reason}");
        assert!(advice.contains("TensorRT 10") && advice.contains("another provider after"), "{advice}");
    }

    #[test]
    fn options_reach_onnx_runtime_under_its_own_names() {
        let inputs = ["input_ids".to_owned(), "attention_mask".to_owned()];
        let options = TensorrtOptions {
            device: 1,
            fp16: true,
            engine_cache: Some("engines".into()),
            workspace_mb: NonZeroUsize::new(2),
            profile: Some(ShapeProfile { min: shape(1, 1), best: shape(8, 128), max: shape(32, 512) }),
            ..TensorrtOptions::default()
        };
        let given = format!("{:?}", tensorrt(&options, Path::new("/models/m"), &inputs));
        for (key, value) in [
            ("device_id", "1"),
            ("trt_fp16_enable", "true"),
            ("trt_int8_enable", "false"),
            ("trt_engine_cache_enable", "true"),
            ("trt_engine_cache_path", "/models/m/engines"),
            ("trt_max_workspace_size", "2097152"),
            ("trt_profile_min_shapes", "input_ids:1x1,attention_mask:1x1"),
            ("trt_profile_opt_shapes", "input_ids:8x128,attention_mask:8x128"),
            ("trt_profile_max_shapes", "input_ids:32x512,attention_mask:32x512"),
        ] {
            assert!(given.contains(&format!("\"{key}\": \"{value}\"")), "{key}={value} is not in {given}");
        }
        assert!(!given.contains("timing"), "{given}");

        let options = CudaOptions { memory_limit_mb: NonZeroUsize::new(3), tf32: true, ..CudaOptions::default() };
        let given = format!("{:?}", cuda(&options));
        for (key, value) in [
            ("gpu_mem_limit", "3145728"),
            ("arena_extend_strategy", "kSameAsRequested"),
            ("use_tf32", "true"),
            ("enable_cuda_graph", "false"),
        ] {
            assert!(given.contains(&format!("\"{key}\": \"{value}\"")), "{key}={value} is not in {given}");
        }
    }
}
