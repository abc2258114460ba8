//! Loads the libraries of a GPU provider by their full path, so that ONNX Runtime finds them by name.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::{
    ProviderKind,
    libraries::{Places, Survey},
};

/// The providers whose libraries were loaded: a process keeps them, so once is enough.
static LOADED: Mutex<Vec<ProviderKind>> = Mutex::new(Vec::new());

/// Loads what is found for `provider`; `onnxruntime` is the file of ONNX Runtime's library.
///
/// A library that can't be loaded is no error here: ONNX Runtime may not need it, and says so if it does.
pub(super) fn preload(provider: ProviderKind, onnxruntime: &Path) {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if provider == ProviderKind::Cpu || loaded.contains(&provider) {
        return;
    }
    loaded.push(provider);
    for file in Survey::take(&Places::of_this_machine(Some(onnxruntime))).to_preload(provider) {
        match ::ort::util::preload_dylib(file) {
            Ok(()) => tracing::debug!(file = %file.display(), "library loaded"),
            Err(error) => tracing::warn!(file = %file.display(), %error, "a library of the GPU can't be loaded"),
        }
    }
}
