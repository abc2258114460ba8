//! What the tests share: model repositories, servers and clients.

mod child;
mod fake_model;
mod held_decoder;
#[cfg(feature = "hub")]
mod hub;
mod raw;
mod repository;
mod server;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(crate) use child::{Child, karat};
pub(crate) use fake_model::FakeModel;
pub(crate) use held_decoder::HeldDecoder;
#[cfg(feature = "hub")]
pub(crate) use hub::{FakeHub, sha256};
pub(crate) use raw::RawConnection;
pub(crate) use repository::{RAW, Repository, graph_manifest};
pub(crate) use server::{Reply, Server, Unserved, client, library};

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, in a fixed order.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// How long a condition may take to come true before the test is called broken; far more than it ever takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, looking often.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether two scores are equal but for the last digits of single precision.
pub(crate) fn is_close(actual: f64, expected: f64) -> bool {
    (actual - expected).abs() <= 1e-6 * (1.0 + expected.abs())
}
