//! From a manifest's [`Provider`] to ONNX Runtime's, and from its complaints to advice.

use std::path::Path;

use ::ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch};

use crate::{
    Arena, CudaOptions, Provider, ProviderKind, RuntimeError, Shape, TensorrtOptions,
    libraries::{Finding, Places, Survey},
};

/// What a session is registered with beside its provider's options.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Registration<'a> {
    /// The number of the GPU.
    pub(super) device: u32,
    /// The names of the graph's inputs.
    pub(super) inputs: &'a [String],
    /// Where TensorRT keeps engines, and timings of kernels.
    pub(super) engines: Option<(&'a Path, &'a Path)>,
    /// The providers that the manifest names behind this one.
    pub(super) behind: &'a [Provider],
}

impl Registration<'_> {
    /// Whether an operator that TensorRT can't run may run on the processor.
    pub(super) fn allows_processor(&self) -> bool {
        self.behind.contains(&Provider::Cpu)
    }
}

/// How ONNX Runtime registers `provider`, the preferred first; nothing for the processor, which it always has.
pub(super) fn dispatch(provider: &Provider, registration: &Registration<'_>) -> Vec<ExecutionProviderDispatch> {
    let dispatches = match provider {
        Provider::Cpu => Vec::new(),
        Provider::Cuda(options) => vec![cuda(options, registration).build()],
        Provider::Tensorrt(options) => {
            let behind = registration.behind.iter().find_map(|provider| match provider {
                Provider::Cuda(options) => Some(cuda(options, registration).build()),
                Provider::Cpu | Provider::Tensorrt(_) => None,
            });
            [tensorrt(options, registration).build()].into_iter().chain(behind).collect()
        }
    };
    // Without this a provider that can't start gives way to the processor without a word.
    dispatches.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect()
}

fn cuda(options: &CudaOptions, registration: &Registration<'_>) -> ep::CUDA {
    let mut provider = ep::CUDA::default()
        .with_device_id(device(registration.device))
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

fn tensorrt(options: &TensorrtOptions, registration: &Registration<'_>) -> ep::TensorRT {
    let mut provider = ep::TensorRT::default()
        .with_device_id(device(registration.device))
        .with_fp16(options.fp16)
        .with_bf16(options.bf16)
        .with_int8(options.int8)
        // A norm sums squares, which overflow in half precision.
        .with_layer_norm_fp32_fallback(options.fp16)
        // Builds that run side by side disturb each other's timings.
        .with_force_sequential_engine_build(true);
    if let Some((engines, timings)) = registration.engines {
        provider = provider
            .with_engine_cache(true)
            .with_engine_cache_path(engines.display())
            .with_timing_cache(true)
            .with_timing_cache_path(timings.display());
    }
    if let Some(workspace) = options.workspace_mb {
        provider = provider.with_max_workspace_size(bytes(workspace.get()));
    }
    if let Some(profile) = options.profile.as_ref().filter(|_| !registration.inputs.is_empty()) {
        provider = provider
            .with_profile_min_shapes(shapes(profile.min, registration.inputs))
            .with_profile_opt_shapes(shapes(profile.best, registration.inputs))
            .with_profile_max_shapes(shapes(profile.max, registration.inputs));
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
    use crate::{
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
            fp16: true,
            workspace_mb: NonZeroUsize::new(2),
            profile: Some(ShapeProfile { min: shape(1, 1), best: shape(8, 128), max: shape(32, 512) }),
            ..TensorrtOptions::default()
        };
        let registration = Registration { device: 1, inputs: &inputs, ..Registration::default() };
        let kept = Registration { engines: Some((Path::new("/m/e"), Path::new("/m/t"))), ..registration };
        let given = format!("{:?}", tensorrt(&options, &kept));
        for (key, value) in [
            ("device_id", "1"),
            ("trt_fp16_enable", "true"),
            ("trt_int8_enable", "false"),
            ("trt_layer_norm_fp32_fallback", "true"),
            ("trt_engine_cache_enable", "true"),
            ("trt_engine_cache_path", "/m/e"),
            ("trt_timing_cache_enable", "true"),
            ("trt_timing_cache_path", "/m/t"),
            ("trt_max_workspace_size", "2097152"),
            ("trt_profile_min_shapes", "input_ids:1x1,attention_mask:1x1"),
            ("trt_profile_opt_shapes", "input_ids:8x128,attention_mask:8x128"),
            ("trt_profile_max_shapes", "input_ids:32x512,attention_mask:32x512"),
        ] {
            assert!(given.contains(&format!("\"{key}\": \"{value}\"")), "{key}={value} is not in {given}");
        }
        let given = format!("{:?}", tensorrt(&options, &registration));
        assert!(!given.contains("timing_cache") && !given.contains("engine_cache"), "{given}");

        let options = CudaOptions { memory_limit_mb: NonZeroUsize::new(3), tf32: true, ..CudaOptions::default() };
        let given = format!("{:?}", cuda(&options, &registration));
        for (key, value) in [
            ("device_id", "1"),
            ("gpu_mem_limit", "3145728"),
            ("arena_extend_strategy", "kSameAsRequested"),
            ("use_tf32", "true"),
            ("enable_cuda_graph", "false"),
        ] {
            assert!(given.contains(&format!("\"{key}\": \"{value}\"")), "{key}={value} is not in {given}");
        }
    }

    #[test]
    fn what_tensorrt_can_not_run_goes_only_where_the_manifest_says() {
        let tensorrt = Provider::from(ProviderKind::Tensorrt);
        let names = |behind: &[Provider]| -> Vec<String> {
            let registration = Registration { behind, ..Registration::default() };
            dispatch(&tensorrt, &registration).iter().map(|dispatch| dispatch.name().to_owned()).collect()
        };
        assert_eq!(names(&[]).len(), 1);
        assert_eq!(names(&[Provider::Cpu]).len(), 1);
        let with_cuda = names(&[ProviderKind::Cuda.into(), Provider::Cpu]);
        assert_eq!(with_cuda.len(), 2);
        assert!(with_cuda[0].contains("Tensorrt") && with_cuda[1].contains("CUDA"), "{with_cuda:?}");
        assert!(Registration { behind: &[Provider::Cpu], ..Registration::default() }.allows_processor());
        assert!(!Registration { behind: &[ProviderKind::Cuda.into()], ..Registration::default() }.allows_processor());
    }
}
